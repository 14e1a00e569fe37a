/* m2se_grad against the committed float64 results of the PyTorch reference: every loss, vector and gradient.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <glob.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "model/files/safetensors.h"

static int grad(const char *model, const char *batch, const char *out) {
  pid_t child = fork();
  if (child == 0) {
    execl(M2SE_GRAD, "m2se_grad", model, batch, out, (char *)NULL);
    _exit(127);
  }
  int status = 0;
  assert_int_equal(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static double norm(const float *x, const float *minus, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; i++) {
    double d = (double)x[i] - (minus ? (double)minus[i] : 0);
    sum += d * d;
  }
  return sqrt(sum);
}

/* An aligned copy of a tensor of the file. */
static float *copy(const struct m2se_safetensors *file, const struct m2se_tensor *t) {
  struct m2se_error error;
  float *x = calloc(t->count + 1, sizeof *x);
  assert_non_null(x);
  assert_int_equal(m2se_safetensors_read_f32(file, t->name, t->rank, t->shape, x, &error), 0);
  return x;
}

static void compare(const char *folder, const char *out_path) {
  char path[512];
  struct m2se_error error;
  struct m2se_safetensors *expected, *out;
  snprintf(path, sizeof path, "%sexpected.safetensors", folder);
  assert_int_equal(m2se_safetensors_open(&expected, path, &error), 0);
  assert_int_equal(m2se_safetensors_open(&out, out_path, &error), 0);
  double all = 0; /* norm of the whole gradient: what is zero by the equations is measured against it */
  uint32_t count = m2se_safetensors_count(expected);
  for (uint32_t i = 0; i < count; i++) {
    const struct m2se_tensor *t = m2se_safetensors_at(expected, i);
    if (strncmp(t->name, "grad.", 5) == 0) {
      float *x = copy(expected, t);
      all = hypot(all, norm(x, NULL, t->count));
      free(x);
    }
  }
  for (uint32_t i = 0; i < count; i++) {
    const struct m2se_tensor *t = m2se_safetensors_at(expected, i);
    float *want = copy(expected, t), *have = calloc(t->count + 1, sizeof *have);
    assert_int_equal(m2se_safetensors_read_f32(out, t->name, t->rank, t->shape, have, &error), 0);
    double difference = norm(have, want, t->count), size = norm(want, NULL, t->count);
    double bound =
        strncmp(t->name, "grad.", 5) == 0 ? fmax(2e-4 * size, 1e-6 * all) : fmax(2e-4 * size, 1e-6);
    if (!(difference <= bound)) {
      fail_msg("%s: %s differs by %g, norm %g", folder, t->name, difference, size);
    }
    free(want);
    free(have);
  }
  assert_true(m2se_safetensors_count(out) >= count);
  m2se_safetensors_close(expected);
  m2se_safetensors_close(out);
}

static void test_fixtures(void **state) {
  (void)state;
  glob_t folders;
  assert_int_equal(glob(M2SE_FIXTURES "/*/", 0, NULL, &folders), 0);
  assert_true(folders.gl_pathc >= 10);
  char out[] = "grad-out-XXXXXX";
  close(mkstemp(out));
  for (size_t i = 0; i < folders.gl_pathc; i++) {
    char model[512], batch[512];
    snprintf(model, sizeof model, "%smodel.safetensors", folders.gl_pathv[i]);
    snprintf(batch, sizeof batch, "%sbatch.safetensors", folders.gl_pathv[i]);
    assert_int_equal(grad(model, batch, out), 0);
    compare(folders.gl_pathv[i], out);
  }
  unlink(out);
  /* A malformed file: exit 65 and no OUT. */
  assert_int_equal(grad(folders.gl_pathv[0], folders.gl_pathv[0], out), 65);
  assert_int_not_equal(access(out, F_OK), 0);
  globfree(&folders);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_fixtures)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
