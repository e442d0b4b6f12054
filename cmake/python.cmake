# What goes into the Python wheel (component "python", scikit-build-core drives it): libsfq as one
# file without version links, which a wheel cannot hold; the binding that cffi makes of the public
# headers; and the command, linked statically so that it runs from wherever pip puts it.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
set(binding ${CMAKE_BINARY_DIR}/python/_cdef.py)
file(GLOB public_headers CONFIGURE_DEPENDS include/sfq/*.h)
add_custom_command(OUTPUT ${binding}
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/python/make_binding.py
    ${CMAKE_C_COMPILER} ${CMAKE_SOURCE_DIR}/include ${binding}
  DEPENDS ${CMAKE_SOURCE_DIR}/python/make_binding.py ${public_headers}
  COMMENT "Python binding of the public headers")
add_custom_target(sfq-python DEPENDS ${binding})

set_target_properties(sfq PROPERTIES VERSION "" SOVERSION "" NO_SONAME ON)
target_link_libraries(sfq-cli PRIVATE sfq_static)
install(TARGETS sfq LIBRARY DESTINATION sfq COMPONENT python)
install(FILES ${binding} DESTINATION sfq COMPONENT python)
install(TARGETS sfq-cli RUNTIME DESTINATION ${SKBUILD_SCRIPTS_DIR} COMPONENT python)
