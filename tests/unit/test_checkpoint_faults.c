/* Checkpoints when the system fails in the middle: whatever call fails, and whenever the process is killed,
 * there is always a good generation to come back to. Linked with WRAP open write fsync rename mkdir
 * calloc. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/checkpoint_rig.h"

/* ---- calls that fail ---- */

enum { OPEN = 1, WRITE = 2, FSYNC = 4, RENAME = 8, MKDIR = 16, ALL = 31, CALLOC = 32 };

static struct {
  unsigned calls;  /* which ones count */
  long left;       /* until the one that fails; 0 or less: none does */
  int error;       /* errno of it; 0: the process is killed instead */
  bool ever_after; /* and of all that follow */
  bool failed;
} fault;

static bool fails_now(unsigned call) {
  if ((fault.calls & call) == 0) {
    return false;
  }
  bool now = fault.left > 0 && --fault.left == 0;
  if (now && fault.error == 0) {
    raise(SIGKILL);
  }
  now = now || (fault.ever_after && fault.failed);
  fault.failed |= now;
  errno = now ? fault.error : errno;
  return now;
}

int __real_open(const char *path, int flags, ...);
ssize_t __real_write(int fd, const void *bytes, size_t size);
int __real_fsync(int fd);
int __real_rename(const char *from, const char *to);
int __real_mkdir(const char *path, mode_t mode);
int __wrap_open(const char *path, int flags, ...);
ssize_t __wrap_write(int fd, const void *bytes, size_t size);
int __wrap_fsync(int fd);
int __wrap_rename(const char *from, const char *to);
int __wrap_mkdir(const char *path, mode_t mode);
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);

int __wrap_open(const char *path, int flags, ...) {
  va_list args;
  va_start(args, flags);
  int mode = (flags & O_CREAT) != 0 ? va_arg(args, int) : 0;
  va_end(args);
  return fails_now(OPEN) ? -1 : __real_open(path, flags, mode);
}

/* A write that fails has first written half: that is how disks fill up. */
ssize_t __wrap_write(int fd, const void *bytes, size_t size) {
  if (!fails_now(WRITE)) {
    return __real_write(fd, bytes, size);
  }
  int error = errno;
  if (error != EINTR && size > 1 && !fault.ever_after) {
    size = (size_t)__real_write(fd, bytes, size / 2);
  }
  errno = error;
  return -1;
}

int __wrap_fsync(int fd) {
  return fails_now(FSYNC) ? -1 : __real_fsync(fd);
}

int __wrap_rename(const char *from, const char *to) {
  return fails_now(RENAME) ? -1 : __real_rename(from, to);
}

int __wrap_mkdir(const char *path, mode_t mode) {
  return fails_now(MKDIR) ? -1 : __real_mkdir(path, mode);
}

void *__wrap_calloc(size_t count, size_t size) {
  return fails_now(CALLOC) ? NULL : __real_calloc(count, size);
}

static void fault_begin(unsigned calls, long n, int error, bool ever_after) {
  fault.calls = calls;
  fault.left = n;
  fault.error = error;
  fault.ever_after = ever_after;
  fault.failed = false;
}

static bool fault_end(void) {
  fault.calls = 0;
  return fault.failed;
}

/* ---- what must hold afterwards ---- */

static uint32_t count_generations(const struct checkpoint_rig *rig, uint64_t *newest) {
  struct m2se_error error;
  uint64_t *numbers;
  uint32_t count;
  assert_int_equal(m2sed_checkpoint_list(rig->dir, &numbers, &count, &error), 0);
  *newest = count > 0 ? numbers[count - 1] : 0;
  for (uint32_t i = 0; i < count; i++) {
    if (m2sed_checkpoint_verify(rig->dir, numbers[i], &error) != 0) {
      fail_msg("%s", error.text);
    }
  }
  free(numbers);
  return count;
}

/* All generations are good, and nothing else is there. */
static void assert_whole(const struct checkpoint_rig *rig, uint64_t at_least) {
  uint64_t newest;
  uint32_t count = count_generations(rig, &newest);
  assert_int_equal(rig_entries(rig->dir), count);
  assert_true(newest >= at_least);
}

/* ---- failures ---- */

static void fail_each_call(unsigned calls, int errno_value, bool ever_after, long calls_min) {
  struct checkpoint_rig rig;
  struct m2se_error error;
  uint64_t generation = 0;
  rig_start(&rig);
  rig_write(&rig);
  long n = 1;
  for (;; n++) {
    rig_advance(&rig);
    fault_begin(calls, n, errno_value, ever_after);
    int code = m2sed_checkpoint_write(rig.dir, &rig.state, &rig.info, &generation, NULL, &error);
    if (!fault_end()) {
      assert_int_equal(code, 0);
      break;
    }
    assert_int_equal(code, M2SE_EIO);
    assert_non_null(strstr(error.text, strerror(errno_value)));
    assert_non_null(strstr(error.text, rig.dir));
    assert_whole(&rig, 1);
  }
  assert_true(n > calls_min);
  assert_whole(&rig, generation);
  rig_stop(&rig);
}

static void test_every_failure(void **unused) {
  (void)unused;
  fail_each_call(OPEN, EMFILE, false, 9);
  fail_each_call(WRITE, EIO, false, 30);
  fail_each_call(FSYNC, EIO, false, 6);
  fail_each_call(RENAME, EIO, false, 1);
  fail_each_call(MKDIR, EDQUOT, false, 1);
  fail_each_call(ALL, EIO, false, 47);
}

static void test_disk_full(void **unused) {
  (void)unused;
  fail_each_call(WRITE, ENOSPC, true, 30); /* from the n-th write on */
}

/* A real limit of the system instead of a simulated one. */
static void test_file_size_limit(void **unused) {
  (void)unused;
  struct checkpoint_rig rig;
  struct m2se_error error;
  struct rlimit before, limit;
  rig_start(&rig);
  rig_write(&rig);
  signal(SIGXFSZ, SIG_IGN);
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
  for (rlim_t bytes = 0; bytes < 4000; bytes += 800) {
    limit = (struct rlimit){bytes, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    int code = m2sed_checkpoint_write(rig.dir, &rig.state, &rig.info, NULL, NULL, &error);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(code, M2SE_EIO);
    assert_whole(&rig, 1);
  }
  signal(SIGXFSZ, SIG_DFL);
  assert_true(rig_write(&rig) == 2);
  rig_stop(&rig);
}

static void test_interrupted_write(void **unused) {
  (void)unused;
  struct checkpoint_rig rig;
  rig_start(&rig);
  bool interrupted = true;
  for (long n = 1; interrupted; n++) {
    fault_begin(WRITE, n, EINTR, false);
    rig_write(&rig);
    interrupted = fault_end();
  }
  assert_whole(&rig, 1);
  rig_stop(&rig);
}

/* ---- no memory ---- */

static void test_no_memory_to_write(void **unused) {
  (void)unused;
  struct checkpoint_rig rig;
  struct m2se_error error;
  rig_start(&rig);
  rig_write(&rig);
  long n = 1;
  for (bool failed = true; failed; n++) {
    fault_begin(CALLOC, n, ENOMEM, false);
    int code = m2sed_checkpoint_write(rig.dir, &rig.state, &rig.info, NULL, NULL, &error);
    failed = fault_end();
    assert_int_equal(code, failed ? M2SE_ENOMEM : 0);
    assert_whole(&rig, failed ? 1 : 2);
  }
  assert_true(n > 20);
  rig_stop(&rig);
}

/* No memory is no reason to take an older generation. */
static void test_no_memory_to_load(void **unused) {
  (void)unused;
  struct checkpoint_rig rig;
  struct m2sed_checkpoint_state *loaded;
  rig_start(&rig);
  rig_write(&rig);
  rig_write(&rig);
  long n = 1;
  for (bool failed = true; failed; n++) {
    fault_begin(CALLOC, n, ENOMEM, false);
    int code = rig_load(&rig, &loaded);
    failed = fault_end();
    assert_int_equal(code, failed ? M2SE_ENOMEM : 0);
    assert_int_equal(rig.refused_count, 0);
    assert_true(failed || loaded->generation == 2);
    m2sed_checkpoint_state_free(loaded);
  }
  assert_true(n > 6);
  rig_stop(&rig);
}

/* ---- how many are kept ---- */

static void test_keep(void **unused) {
  (void)unused;
  struct checkpoint_rig rig;
  uint64_t newest;
  rig_start(&rig);
  rig.info.keep = 2;
  for (uint64_t generation = 1; generation <= 5; generation++) {
    assert_true(rig_write(&rig) == generation);
    assert_int_equal(count_generations(&rig, &newest), generation < 2 ? 1 : 2);
    assert_true(newest == generation);
  }
  fault_begin(RENAME, 2, EACCES,
              true); /* the second one moves the oldest away: the write is good all the same */
  assert_true(rig_write(&rig) == 6);
  assert_true(fault_end());
  assert_int_equal(count_generations(&rig, &newest), 3);
  assert_true(rig_write(&rig) == 7);
  assert_int_equal(count_generations(&rig, &newest), 2);
  assert_whole(&rig, 7);
  rig.info.keep = 1;
  assert_true(rig_write(&rig) == 8);
  assert_int_equal(count_generations(&rig, &newest), 1);
  rig_stop(&rig);
}

/* Only what is named exactly as we name it is ours. */
static void test_names(void **unused) {
  (void)unused;
  struct checkpoint_rig rig;
  struct m2se_error error;
  uint64_t newest;
  char path[256];
  rig_start(&rig);
  const char *const foreign[] = {
      "gen-1",           "gen-00000000001",          "gen-000000000x", "generation",
      "gen-+000000001",  "gen-99999999999999999999", "lock",           "gen-",
      "gen-0000000003~", "xgen-0000000003.tmp.1"};
  const uint32_t foreign_count = sizeof foreign / sizeof foreign[0];
  for (uint32_t i = 0; i < foreign_count; i++) {
    snprintf(path, sizeof path, "%s/%s", rig.dir, foreign[i]);
    assert_int_equal(mkdir(path, 0755), 0);
  }
  assert_true(rig_write(&rig) == 1);
  snprintf(path, sizeof path, "%s/gen-0000000002.tmp.77", rig.dir);
  assert_int_equal(mkdir(path, 0755), 0);
  snprintf(path, sizeof path, "%s/gen-0000000002.tmp.77/model.safetensors", rig.dir);
  rig_overwrite(path, "x", 1);
  assert_int_equal(count_generations(&rig, &newest), 1);
  assert_int_equal(m2sed_checkpoint_clean(rig.dir, &error), 0);
  assert_int_equal(rig_entries(rig.dir), foreign_count + 1);
  snprintf(path, sizeof path, "%s/gen-0000000002.tmp.78", rig.dir);
  assert_int_equal(mkdir(path, 0755), 0);
  snprintf(path, sizeof path, "%s/gen-0000000002.tmp.78/folder", rig.dir);
  assert_int_equal(mkdir(path, 0755), 0); /* nothing of ours: told, not removed */
  assert_int_equal(m2sed_checkpoint_clean(rig.dir, &error), M2SE_EIO);
  rig_stop(&rig);
}

/* A generation above 10 digits still is the newest. */
static void test_large_numbers(void **unused) {
  (void)unused;
  struct checkpoint_rig rig;
  struct m2sed_checkpoint_state *loaded;
  char to[512];
  rig_start(&rig);
  rig_write(&rig);
  rig_edit_manifest(&rig, 1, "\"generation\": \"1\"", "\"generation\": \"9999999999\"");
  snprintf(to, sizeof to, "%s/gen-9999999999", rig.dir);
  assert_int_equal(rename(rig_path(&rig, 1, NULL), to), 0);
  assert_true(rig_write(&rig) == UINT64_C(10000000000));
  assert_int_equal(rig_load(&rig, &loaded), 0);
  assert_true(loaded->generation == UINT64_C(10000000000));
  m2sed_checkpoint_state_free(loaded);
  rig_stop(&rig);
}

/* ---- kill -9 ---- */

/* Waits for a child that was killed. False: it ended by itself. */
static bool was_killed(pid_t child) {
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
  return WIFSIGNALED(status);
}

static void assert_comes_back(struct checkpoint_rig *rig, uint64_t at_least) {
  struct m2sed_checkpoint_state *loaded;
  struct m2se_error error;
  assert_int_equal(m2sed_checkpoint_clean(rig->dir, &error), 0);
  assert_int_equal(rig_load(rig, &loaded), 0);
  assert_int_equal(rig->refused_count, 0);
  assert_true(loaded->generation >= at_least);
  m2sed_checkpoint_state_free(loaded);
  assert_whole(rig, at_least);
}

/* Before each call that changes something. */
static void test_killed_at_every_call(void **unused) {
  (void)unused;
  struct checkpoint_rig rig;
  rig_start(&rig);
  rig.info.keep = 1;
  uint64_t before = rig_write(&rig);
  long n = 1;
  for (bool killed = true; killed; n++) {
    pid_t child = fork();
    if (child == 0) {
      fault_begin(ALL, n, 0, false);
      m2sed_checkpoint_write(rig.dir, &rig.state, &rig.info, NULL, NULL, NULL);
      _exit(0);
    }
    killed = was_killed(child);
    assert_comes_back(&rig, before);
    count_generations(&rig, &before);
  }
  assert_true(n > 48);
  assert_true(before > 1);
  rig_stop(&rig);
}

static void write_for_ever(struct checkpoint_rig *rig, int done) {
  for (;;) {
    struct m2se_error error;
    uint64_t generation;
    if (m2sed_checkpoint_write(rig->dir, &rig->state, &rig->info, &generation, NULL, &error) != 0 ||
        write(done, &generation, sizeof generation) != sizeof generation) {
      _exit(1);
    }
  }
}

static void test_killed_at_any_time(void **unused) {
  (void)unused;
  struct checkpoint_rig rig;
  uint64_t newest = 0;
  rig_start(&rig);
  rig.info.keep = 2;
  newest = rig_write(&rig);
  for (long round = 0; round < 40; round++) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
      write_for_ever(&rig, ends[1]);
    }
    close(ends[1]);
    uint64_t generation;
    /* At least one is done, then anywhere in the next ones. */
    assert_int_equal(read(ends[0], &generation, sizeof generation), sizeof generation);
    nanosleep(&(struct timespec){.tv_nsec = round * 137911}, NULL);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_true(was_killed(child));
    do {
      newest = generation; /* told to be done: it must be there */
    } while (read(ends[0], &generation, sizeof generation) == sizeof generation);
    close(ends[0]);
    assert_comes_back(&rig, newest);
  }
  rig_stop(&rig);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_every_failure),
      cmocka_unit_test(test_disk_full),
      cmocka_unit_test(test_file_size_limit),
      cmocka_unit_test(test_interrupted_write),
      cmocka_unit_test(test_no_memory_to_write),
      cmocka_unit_test(test_no_memory_to_load),
      cmocka_unit_test(test_keep),
      cmocka_unit_test(test_names),
      cmocka_unit_test(test_large_numbers),
      cmocka_unit_test(test_killed_at_every_call),
      cmocka_unit_test(test_killed_at_any_time),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
