#include "encoder_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants the four above first */
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/files/file.h"

enum { TENSORS_MAX = 128 };

static char temporary[64];

const char *rig_folder(const char *name) {
  static char path[512];
  snprintf(path, sizeof path, "%s/tests/fixtures/encoder/%s", M2SED_TEST_SOURCE_DIR, name);
  return path;
}

struct m2se_safetensors *rig_expected(const char *name) {
  char path[600];
  struct m2se_error error;
  struct m2se_safetensors *file;
  snprintf(path, sizeof path, "%s/expected.safetensors", rig_folder(name));
  if (m2se_safetensors_open(&file, path, &error))
    fail_msg("%s", error.text);
  return file;
}

static const struct m2se_tensor *tensor_of(const struct m2se_safetensors *file, const char *name,
                                           size_t *count) {
  const struct m2se_tensor *tensor = m2se_safetensors_find(file, name);
  assert_non_null(tensor);
  if (count)
    *count = tensor->count;
  return tensor;
}

float *rig_floats(const struct m2se_safetensors *file, const char *name, size_t *count) {
  const struct m2se_tensor *tensor = tensor_of(file, name, count);
  float *numbers = malloc(tensor->count * sizeof *numbers);
  assert_int_equal(m2se_safetensors_read_f32(file, name, tensor->rank, tensor->shape, numbers, NULL), 0);
  return numbers;
}

uint32_t *rig_numbers(const struct m2se_safetensors *file, const char *name, size_t *count) {
  const struct m2se_tensor *tensor = tensor_of(file, name, count);
  int32_t *numbers = malloc(tensor->count * sizeof *numbers);
  assert_int_equal(m2se_safetensors_read_i32(file, name, tensor->rank, tensor->shape, numbers, NULL), 0);
  return (uint32_t *)numbers;
}

void rig_normalise(float *rows, size_t count, size_t n) {
  for (size_t r = 0; r < count; r++) {
    double squares = 0;
    for (size_t i = 0; i < n; i++)
      squares += (double)rows[r * n + i] * rows[r * n + i];
    for (size_t i = 0; i < n; i++)
      rows[r * n + i] /= (float)sqrt(squares);
  }
}

void rig_close(const float *got, const float *want, size_t n, const char *what) {
  for (size_t i = 0; i < n; i++)
    if (!(fabsf(got[i] - want[i]) <= 1e-5f))
      fail_msg("%s[%zu of %zu]: %.9g, expected %.9g", what, i, n, (double)got[i], (double)want[i]);
}

static bool is(const char *wanted, const char *name) {
  return wanted && !strcmp(wanted, name);
}

static void write_damaged(const struct m2se_safetensors *from, const char *path, struct rig_damage damage) {
  static struct m2se_tensor tensors[TENSORS_MAX];
  static char other[256];
  static const float nan_first[4096] = {NAN};
  uint32_t count = 0;
  for (uint32_t i = 0; i < m2se_safetensors_count(from); i++) {
    struct m2se_tensor *to = &tensors[count];
    *to = *m2se_safetensors_at(from, i);
    if (is(damage.leave_out, to->name))
      continue;
    assert_true(++count < TENSORS_MAX);
    if (is(damage.reshape, to->name)) {
      to->rank = 1;
      to->shape[0] = to->count;
    }
    if (is(damage.retype, to->name))
      to->dtype = M2SE_I32;
    if (is(damage.poison, to->name)) {
      assert_true(to->bytes <= sizeof nan_first);
      to->data = nan_first;
    }
    if (is(damage.rename, to->name)) {
      snprintf(other, sizeof other, "%s.other", to->name);
      to->name = other;
    }
  }
  struct m2se_error error = {0};
  const struct m2se_safetensors_content content = {.tensors = tensors, .tensor_count = count};
  if (m2se_safetensors_write(path, &content, false, &error))
    fail_msg("%s", error.text);
  struct stat size;
  assert_int_equal(stat(path, &size), 0);
  assert_int_equal(truncate(path, size.st_size - (off_t)damage.cut_bytes), 0);
}

const char *rig_damaged(const char *name, struct rig_damage damage) {
  char path[600], *config;
  size_t size;
  struct m2se_error error;
  struct m2se_safetensors *from;
  rig_remove();
  snprintf(temporary, sizeof temporary, "/tmp/m2se-encoder-XXXXXX");
  assert_non_null(mkdtemp(temporary));
  snprintf(path, sizeof path, "%s/model.safetensors", rig_folder(name));
  if (m2se_safetensors_open(&from, path, &error) ||
      m2se_file_read(rig_folder(name), "config.json", 65536, &config, &size, &error))
    fail_msg("%s", error.text);
  snprintf(path, sizeof path, "%s/model.safetensors", temporary);
  write_damaged(from, path, damage);
  m2se_safetensors_close(from);
  snprintf(path, sizeof path, "%s/config.json", temporary);
  FILE *file = fopen(path, "w");
  fputs(damage.config ? damage.config : config, file);
  assert_int_equal(fclose(file), 0);
  free(config);
  return temporary;
}

void rig_remove(void) {
  static const char *const names[] = {"model.safetensors", "config.json"};
  char path[600];
  for (size_t i = 0; temporary[0] && i < 2; i++) {
    snprintf(path, sizeof path, "%s/%s", temporary, names[i]);
    unlink(path);
  }
  if (temporary[0])
    rmdir(temporary);
  temporary[0] = '\0';
}
