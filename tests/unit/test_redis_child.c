/* The private redis-server of the embedded mode: keeps its data, dies with its parent, says what is missing.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "redis_rig.h"

static int set_up(void **state) {
  struct redis_rig *rig = malloc(sizeof *rig);
  assert_non_null(rig);
  rig_start(rig);
  *state = rig;
  return 0;
}

static int tear_down(void **state) {
  rig_stop(*state);
  free(*state);
  return 0;
}

static void test_child_keeps_its_data(void **state) {
  struct redis_rig *rig = *state;
  rig_admin(rig, "SET kept yes");
  assert_true(m2se_redis_child_alive(rig->child));
  pid_t first = m2se_redis_child_pid(rig->child);
  rig_end_server(rig);
  assert_int_equal(kill(first, 0), -1);
  rig_start_server(rig);
  assert_string_equal(rig_admin(rig, "GET kept"), "yes");
  /* Another one in the same directory is refused while this one lives. */
  struct m2se_redis_child *second = NULL;
  struct m2se_error error = {0};
  assert_int_equal(m2se_redis_child_start(&second, rig->directory, 100, &error), M2SE_EIO);
  assert_non_null(strstr(error.text, "redis.lock"));
  assert_string_equal(rig_admin(rig, "GET kept"), "yes");
}

static void test_child_dies_with_its_parent(void **state) {
  struct redis_rig *rig = *state;
  char directory[80];
  snprintf(directory, sizeof directory, "%s/inner", rig->directory);
  int pipe_fds[2];
  assert_int_equal(pipe(pipe_fds), 0);
  pid_t parent = fork();
  if (parent == 0) {
    struct m2se_redis_child *child = NULL;
    pid_t pid = m2se_redis_child_start(&child, directory, 20000, NULL) ? 0 : m2se_redis_child_pid(child);
    if (write(pipe_fds[1], &pid, sizeof pid) > 0)
      pause();
    _exit(1);
  }
  pid_t server = 0;
  assert_int_equal(read(pipe_fds[0], &server, sizeof server), sizeof server);
  assert_true(server > 0);
  assert_int_equal(kill(server, 0), 0);
  kill(parent, SIGKILL);
  waitpid(parent, NULL, 0);
  close(pipe_fds[0]);
  close(pipe_fds[1]);
  /* The next one waits for it to be gone. */
  struct m2se_redis_child *next = NULL;
  struct m2se_error error = {0};
  if (m2se_redis_child_start(&next, directory, 20000, &error))
    fail_msg("%s", error.text);
  assert_int_not_equal(m2se_redis_child_pid(next), server);
  assert_int_equal(m2se_redis_child_stop(next, 5000, NULL), 0);
}

static void test_child_errors(void **state) {
  (void)state;
  struct m2se_redis_child *child = NULL;
  struct m2se_error error = {0};
  assert_int_equal(m2se_redis_child_start(&child, "/nowhere/at/all", 1000, &error), M2SE_EIO);
  assert_non_null(strstr(error.text, "/nowhere/at/all"));
  char path[] = "/tmp/m2se-child-XXXXXX";
  assert_non_null(mkdtemp(path));
  char long_path[160];
  snprintf(long_path, sizeof long_path, "%s/%0100d", path, 1);
  assert_int_equal(m2se_redis_child_start(&child, long_path, 1000, &error), M2SE_ELIMIT);
  rmdir(long_path);
  char *search_path = strdup(getenv("PATH"));
  setenv("PATH", "/nowhere", 1);
  int code = m2se_redis_child_start(&child, path, 1000, &error);
  setenv("PATH", search_path, 1);
  free(search_path);
  assert_int_equal(code, M2SE_EMISSING);
  char command[64];
  snprintf(command, sizeof command, "rm -rf %s", path);
  assert_int_equal(system(command), 0);
}

int main(void) {
  int status = rig_check_server();
  if (status)
    return status;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_child_keeps_its_data, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_child_dies_with_its_parent, set_up, tear_down),
      cmocka_unit_test(test_child_errors),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
