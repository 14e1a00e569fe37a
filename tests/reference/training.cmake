# training.py and what it compares with: the same steps in float and in double.
if(CMOCKA_FOUND AND NOT M2SED_FUZZ) # model_sample.c asserts with cmocka
  foreach(precision "" _double)
    add_executable(train_steps${precision} train_steps.c ${CMAKE_SOURCE_DIR}/tests/unit/model_sample.c)
    target_link_libraries(train_steps${precision} PRIVATE m2se${precision} PkgConfig::CMOCKA)
  endforeach()
  m2se_add_python_test(training SCRIPT training.py LABELS reference
    ARGS $<TARGET_FILE:train_steps> $<TARGET_FILE:train_steps_double>)
endif()
