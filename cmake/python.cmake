# What goes into the Python wheel (component "python", scikit-build-core drives it): libsfq as one
# file without version links, which a wheel cannot hold; the kernel of the PyTorch operator, which
# every build compiles; the binding that cffi makes of the public headers; and the command, linked
# statically so that it runs from wherever pip puts it.
# The kernel of the PyTorch operator finds torch's C functions at run time, so no torch is needed.
add_library(sfq-torch MODULE ${CMAKE_SOURCE_DIR}/python/torch_op.c)
target_include_directories(sfq-torch PRIVATE ${CMAKE_SOURCE_DIR}/include)
target_link_libraries(sfq-torch PRIVATE sfq_flags sfq dl)
target_compile_options(sfq-torch PRIVATE -fexceptions)
set_target_properties(sfq-torch PROPERTIES PREFIX "" OUTPUT_NAME _torch INSTALL_RPATH "$ORIGIN")
if(NOT SKBUILD)
  return()
endif()

find_package(Python3 REQUIRED COMPONENTS Interpreter)
set(binding ${CMAKE_BINARY_DIR}/python/_cdef.py)
file(GLOB public_headers CONFIGURE_DEPENDS include/sfq/*.h)
add_custom_command(OUTPUT ${binding}
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/python/make_binding.py
    ${CMAKE_C_COMPILER} ${CMAKE_SOURCE_DIR} ${binding}
  DEPENDS ${CMAKE_SOURCE_DIR}/python/make_binding.py ${CMAKE_SOURCE_DIR}/python/torch_op.h
    ${public_headers}
  COMMENT "Python binding of the public headers")
add_custom_target(sfq-python DEPENDS ${binding})

target_link_libraries(sfq-cli PRIVATE sfq_static)
install(TARGETS sfq sfq-torch LIBRARY DESTINATION sfq COMPONENT python)
install(FILES ${binding} DESTINATION sfq COMPONENT python)
install(TARGETS sfq-cli RUNTIME DESTINATION ${SKBUILD_SCRIPTS_DIR} COMPONENT python)
