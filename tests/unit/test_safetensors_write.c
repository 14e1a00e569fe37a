// Writing safetensors: read back, refused contents, a system and a memory that fail.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/files/safetensors.h"
#include "tests/unit/fail_nth.h"

static char folder[] = "/tmp/m2se_write_XXXXXX";
static char path[64];

static int make_folder(void **state) {
  (void)state;
  assert_non_null(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/file", folder);
  return 0;
}

static int remove_folder(void **state) {
  (void)state;
  unlink(path);
  return rmdir(folder);
}

static const float floats[] = {1, -2, 3, -4, 5, -6};
static const int64_t scalar = -7;
static const struct m2se_tensor sound_tensors[] = {
    {.name = "scalar", .dtype = M2SE_I64, .rank = 0, .data = &scalar},
    {.name = "gr\xc3\xbc\xc3\x9f \"e\"", .dtype = M2SE_F32, .rank = 2, .shape = {2, 3}, .data = floats},
    {.name = "none", .dtype = M2SE_U8, .rank = 3, .shape = {4, 0, 9}},
};
static const struct m2se_metadata sound_metadata[] = {{"format", "m2se"}, {"note", "two\nlines"}};
static const struct m2se_safetensors_content sound = {sound_tensors, 3, sound_metadata, 2};

static struct m2se_safetensors *open_written(void) {
  struct m2se_safetensors *file = NULL;
  assert_int_equal(m2se_safetensors_open(&file, path, NULL), 0);
  return file;
}

static void test_read_back(void **state) {
  (void)state;
  for (int sync = 0; sync <= 1; sync++) {
    assert_int_equal(m2se_safetensors_write(path, &sound, sync, NULL), 0);
    struct m2se_safetensors *file = open_written();
    assert_int_equal(m2se_safetensors_count(file), 3);
    int64_t whole = 0;
    assert_int_equal(m2se_safetensors_read_i64(file, "scalar", 0, NULL, &whole, NULL), 0);
    assert_int_equal(whole, scalar);
    const struct m2se_tensor *tensor = m2se_safetensors_find(file, sound_tensors[1].name);
    assert_memory_equal(tensor->data, floats, sizeof floats);
    assert_int_equal((uintptr_t)tensor->data % 8, 0); // the header is padded
    assert_int_equal(m2se_safetensors_find(file, "none")->count, 0);
    assert_string_equal(m2se_safetensors_metadata(file, "note"), "two\nlines");
    m2se_safetensors_close(file);
  }
  struct m2se_safetensors_content empty = {0};
  assert_int_equal(m2se_safetensors_write(path, &empty, false, NULL), 0);
  struct m2se_safetensors *file = open_written();
  assert_int_equal(m2se_safetensors_count(file), 0);
  assert_null(m2se_safetensors_metadata_all(file));
  m2se_safetensors_close(file);
}

// Nothing is written, and what was there stays.
static void test_refused(void **state) {
  (void)state;
  static const uint8_t bytes[4];
  char long_name[M2SE_TENSOR_NAME_MAX + 2];
  memset(long_name, 'n', sizeof long_name - 1);
  long_name[sizeof long_name - 1] = '\0';
  const struct m2se_tensor good = {.name = "t", .dtype = M2SE_U8, .rank = 1, .shape = {4}, .data = bytes};
  const struct {
    const char *name;
    uint64_t shape;
    int code;
    const char *message;
  } cases[] = {
      {"\xff", 4, M2SE_EFORMAT, "name is not UTF-8"},
      {"__metadata__", 4, M2SE_EFORMAT, "name is the metadata's"},
      {"", 4, M2SE_EFORMAT, "empty name"},
      {"t", 4, M2SE_EFORMAT, "a hole"}, // the name of the one before
      {long_name, 4, M2SE_ELIMIT, "a name of 201 bytes"},
      {"u", 1ull << 63, M2SE_EFORMAT, "larger than 2^63 - 1"},
      {"u", INT64_MAX, M2SE_EFORMAT, "more than 2^63 - 1 bytes"},
  };
  assert_int_equal(m2se_safetensors_write(path, &sound, false, NULL), 0);
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct m2se_tensor tensors[2] = {good, good};
    tensors[1].name = cases[i].name;
    tensors[1].shape[0] = cases[i].shape;
    struct m2se_error error = {0};
    struct m2se_safetensors_content content = {tensors, 2, NULL, 0};
    assert_int_equal(m2se_safetensors_write(path, &content, false, &error), cases[i].code);
    assert_non_null(strstr(error.text, cases[i].message));
    assert_non_null(strstr(error.text, path));
  }
  struct m2se_metadata bad = {"key", "\xc3"};
  struct m2se_safetensors_content content = {&good, 1, &bad, 1};
  assert_int_equal(m2se_safetensors_write(path, &content, false, NULL), M2SE_EFORMAT);
  struct m2se_safetensors *file = open_written();
  assert_int_equal(m2se_safetensors_count(file), 3);
  m2se_safetensors_close(file);
}

static void test_system_fails(void **state) {
  (void)state;
  struct m2se_error error = {0};
  assert_int_equal(m2se_safetensors_write(folder, &sound, false, &error), M2SE_EIO);
  assert_non_null(strstr(error.text, "open: Is a directory"));
  assert_int_equal(m2se_safetensors_write("/dev/full", &sound, false, &error), M2SE_EIO);
  assert_string_equal(error.text, "/dev/full: write: No space left on device (ENOSPC)");
  assert_int_equal(access("/dev/full", F_OK), 0); // devices are never removed
  int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  assert_int_equal(m2se_safetensors_write_fd(fd, "label", &sound, &error), M2SE_EIO);
  assert_string_equal(error.text, "label: write: Bad file descriptor (EBADF)");
  close(fd);
}

static void test_no_memory(void **state) {
  (void)state;
  long before = fail_nth_outstanding;
  bool failed = true;
  for (long n = 1; failed; n++) {
    struct m2se_error error = {0};
    unlink(path);
    fail_nth_start(n);
    int code = m2se_safetensors_write(path, &sound, false, &error);
    failed = fail_nth_stop();
    assert_int_equal(code, failed ? M2SE_ENOMEM : 0);
    assert_int_equal(error.code, code);
    assert_int_equal(access(path, F_OK) == 0, !failed);
    assert_int_equal(fail_nth_outstanding, before);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_read_back),
      cmocka_unit_test(test_refused),
      cmocka_unit_test(test_system_fails),
      cmocka_unit_test(test_no_memory),
  };
  return cmocka_run_group_tests_name("safetensors_write", tests, make_folder, remove_folder);
}
