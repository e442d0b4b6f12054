# Compiler flags, one place. sfq_flags is an interface target that everything links;
# sfq_isa_flags() gives a source the instruction sets that its file suffix names.
add_library(sfq_flags INTERFACE)
target_compile_options(sfq_flags INTERFACE
  -Wall -Wextra -Wconversion -Wsign-conversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes
  -Wformat=2 -Wvla -Werror -ffp-contract=off -fno-math-errno
  $<$<CONFIG:Release>:-O2 -fstack-protector-strong -fstack-clash-protection -fcf-protection=full>)
target_compile_definitions(sfq_flags INTERFACE _GNU_SOURCE SFQ_BUILD_TYPE="${CMAKE_BUILD_TYPE}")
if(SFQ_SANITIZE)
  target_compile_options(sfq_flags INTERFACE -fsanitize=${SFQ_SANITIZE} -fno-omit-frame-pointer -g1)
  target_link_options(sfq_flags INTERFACE -fsanitize=${SFQ_SANITIZE})
elseif(CMAKE_BUILD_TYPE STREQUAL "Release")
  target_compile_definitions(sfq_flags INTERFACE _FORTIFY_SOURCE=2)
  target_link_options(sfq_flags INTERFACE -Wl,-z,relro,-z,now,-z,noexecstack)
endif()

# The registers of a kernel are arrays on its stack. Where ASan looks out for uses behind their
# scope it keeps them in memory and checks each access; without that, kernels are three times as
# fast under it, and reads and writes outside of an array are found as before.
if(SFQ_SANITIZE MATCHES address)
  set(SFQ_ISA_SANITIZE -fno-sanitize-address-use-after-scope)
endif()

set(SFQ_ISA_FLAGS_avx2 -mavx2 -mfma -mf16c -mbmi2)
set(SFQ_ISA_FLAGS_avxvnni ${SFQ_ISA_FLAGS_avx2} -mavxvnni)
set(SFQ_ISA_FLAGS_avx512 ${SFQ_ISA_FLAGS_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl)
set(SFQ_ISA_FLAGS_avx512vnni ${SFQ_ISA_FLAGS_avx512} -mavx512vnni)
set(SFQ_ISA_FLAGS_amx ${SFQ_ISA_FLAGS_avx512vnni} -mamx-tile -mamx-int8 -mamx-bf16)

function(sfq_isa_flags sources)
  foreach(source ${sources})
    foreach(isa avx2 avxvnni avx512 avx512vnni amx)
      if(source MATCHES "_${isa}\\.c$")
        set_source_files_properties(${source} TARGET_DIRECTORY sfq_base
          PROPERTIES COMPILE_OPTIONS "${SFQ_ISA_FLAGS_${isa}};${SFQ_ISA_SANITIZE}")
      endif()
    endforeach()
  endforeach()
endfunction()
