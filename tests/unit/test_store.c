// The store of feature rows: contents by digest, items by id, what waits, and a process killed at any moment.
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "daemon/features/store.h"

enum { DIM = 3 };
static char folder[] = "/tmp/m2sed-store-XXXXXX";
static struct m2sed_store_item item; // large

static int remove_one(const char *path, const struct stat *about, int kind, struct FTW *where) {
  (void)about;
  (void)kind;
  return where->level ? remove(path) : 0;
}

static int empty_folder(void **state) {
  (void)state;
  return nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static struct m2sed_store_options options_of(uint8_t model) {
  struct m2sed_store_options options = {.folder = folder, .bytes_max = 64 << 20};
  memset(options.models, model, sizeof options.models);
  return options;
}

static struct m2sed_store *open_store(uint8_t model) {
  struct m2sed_store_options options = options_of(model);
  struct m2sed_store *store;
  struct m2se_error error = {0};
  if (m2sed_store_open(&store, &options, &error) != 0)
    fail_msg("%s", error.text);
  return store;
}

static struct m2sed_content text(const char *what) {
  return (struct m2sed_content){M2SED_CONTENT_TEXT, what, strlen(what)};
}

static int put(struct m2sed_store *store, const char *id, const char *one, const char *two) {
  struct m2sed_content contents[2] = {text(one), text(two ? two : "")};
  struct m2se_error error = {0};
  int waiting = m2sed_store_put_item(store, id, 7, contents, two ? 2 : 1, &error);
  if (waiting < 0)
    fail_msg("%s", error.text);
  return waiting;
}

static void compute(struct m2sed_store *store, const char *what, float first) {
  struct m2sed_content content = text(what);
  uint8_t digest[M2SED_DIGEST_BYTES];
  float row[DIM] = {first, first + 1, first + 2};
  m2sed_store_digest(&content, digest);
  assert_int_equal(m2sed_store_put_row(store, digest, row, DIM, NULL), 0);
}

static void expect_row(const struct m2sed_store_content *content, float first) {
  float row[DIM];
  assert_int_equal(content->state, M2SED_CONTENT_HAS_ROW);
  assert_int_equal(content->dim, DIM);
  memcpy(row, content->row, sizeof row);
  assert_true(row[0] == first && row[2] == first + 2);
}

static void sound(struct m2sed_store *store) {
  struct m2se_error error = {0};
  if (m2sed_store_check(store, &error) != 0)
    fail_msg("%s", error.text);
}

static struct m2sed_store_counts counts_of(struct m2sed_store *store) {
  struct m2sed_store_counts counts;
  sound(store);
  assert_int_equal(m2sed_store_count(store, &counts, NULL), 0);
  return counts;
}

static void test_digest(void **state) {
  (void)state;
  // SHA-256 of the bytes 0 'a' 'b' 'c': what is on disk must be found by every later version.
  static const uint8_t expected[4] = {0x60, 0x9f, 0x6e, 0x36};
  uint8_t as_text[M2SED_DIGEST_BYTES], as_picture[M2SED_DIGEST_BYTES];
  struct m2sed_content content = text("abc");
  m2sed_store_digest(&content, as_text);
  content.kind = M2SED_CONTENT_PICTURE;
  m2sed_store_digest(&content, as_picture);
  assert_memory_equal(as_text, expected, sizeof expected);
  assert_memory_not_equal(as_text, as_picture, sizeof as_text);
}

static void test_a_text_is_computed_once(void **state) {
  (void)state;
  struct m2sed_store *store = open_store(1);
  assert_int_equal(put(store, "a", "red", "shoe"), 2);
  assert_int_equal(put(store, "b", "red", "red"), 2); // waits, too
  compute(store, "red", 10);
  assert_int_equal(put(store, "c", "red", NULL), 0);
  assert_int_equal(m2sed_store_get_item(store, "c", &item, NULL), 1);
  expect_row(&item.contents[0], 10);
  assert_null(item.contents[0].bytes);
  assert_int_equal(m2sed_store_get_item(store, "a", &item, NULL), 1);
  assert_int_equal(item.waiting, 1);
  assert_int_equal(item.contents[1].state, M2SED_CONTENT_WAITS);
  assert_int_equal(item.contents[1].size, 4);
  assert_memory_equal(item.contents[1].bytes, "shoe", 4);
  struct m2sed_store_counts counts = counts_of(store);
  assert_int_equal(counts.items, 3);
  assert_int_equal(counts.contents, 2);
  assert_int_equal(counts.waiting, 1);
  assert_int_equal(m2sed_store_commit(store, NULL), 0);
  m2sed_store_close(store);
  store = open_store(1);
  assert_int_equal(put(store, "c", "red", NULL), 0); // after a restart nothing again
  assert_int_equal(put(store, "a", "red", "shoe"), 1);
  m2sed_store_close(store);
}

static void test_changes_and_deletions(void **state) {
  (void)state;
  struct m2sed_store *store = open_store(1);
  put(store, "a", "red", "shoe");
  put(store, "b", "shoe", "blue");
  compute(store, "red", 1);
  compute(store, "shoe", 2);
  compute(store, "blue", 3);
  assert_int_equal(put(store, "a", "green", "shoe"), 1); // only what changed
  assert_int_equal(counts_of(store).contents, 3);        // nobody has red
  assert_int_equal(m2sed_store_delete_item(store, "b", NULL), 0);
  assert_int_equal(counts_of(store).contents, 2); // and shoe is still that of a
  assert_int_equal(m2sed_store_delete_item(store, "b", NULL), 0);
  assert_int_equal(m2sed_store_get_item(store, "b", &item, NULL), 0);
  assert_int_equal(put(store, "a", "shoe", NULL), 0);
  assert_int_equal(counts_of(store).pending, 0);
  assert_int_equal(m2sed_store_delete_item(store, "a", NULL), 0);
  struct m2sed_store_counts counts = counts_of(store);
  assert_int_equal(counts.items + counts.contents + counts.waiting, 0);
  compute(store, "green", 4); // computed for nobody
  assert_int_equal(counts_of(store).contents, 0);
  m2sed_store_close(store);
}

static void expect_order(struct m2sed_store *store, const char *ids) {
  uint64_t before = 0;
  for (; *ids; ids++) {
    assert_int_equal(m2sed_store_next_item(store, &before, &item, NULL), 1);
    assert_true(item.id[0] == *ids && item.id[1] == '\0');
    assert_int_equal(item.sequence, before);
  }
  assert_int_equal(m2sed_store_next_item(store, &before, &item, NULL), 0);
}

static void test_the_newest_first(void **state) {
  (void)state;
  struct m2sed_store *store = open_store(1);
  expect_order(store, "");
  put(store, "a", "1", NULL);
  put(store, "b", "2", NULL);
  put(store, "c", "3", NULL);
  expect_order(store, "cba");
  put(store, "a", "1", NULL); // says nothing new
  expect_order(store, "cba");
  struct m2sed_content same = text("1");
  assert_int_equal(m2sed_store_put_item(store, "a", 9, &same, 1, NULL), 1);
  expect_order(store, "cba");
  assert_int_equal(item.version, 9); // the last one shown is a
  put(store, "a", "4", NULL);
  expect_order(store, "acb");
  compute(store, "3", 0);
  uint64_t before = 0;
  m2sed_store_next_item(store, &before, &item, NULL);
  m2sed_store_next_item(store, &before, &item, NULL);
  assert_int_equal(item.waiting, 0);
  assert_int_equal(m2sed_store_finish_item(store, item.id, NULL), 0);
  assert_int_equal(m2sed_store_finish_item(store, "c", NULL), 0); // once more
  assert_int_equal(m2sed_store_finish_item(store, "none", NULL), 0);
  expect_order(store, "ab");
  assert_int_equal(m2sed_store_commit(store, NULL), 0);
  m2sed_store_close(store);
  store = open_store(1);
  expect_order(store, "ab");
  put(store, "d", "5", NULL);
  expect_order(store, "dab");
  sound(store);
  m2sed_store_close(store);
}

static void test_poison_and_retries(void **state) {
  (void)state;
  struct m2sed_store *store = open_store(1);
  struct m2sed_content picture = {M2SED_CONTENT_PICTURE, "GIF89a", 6};
  uint8_t digest[M2SED_DIGEST_BYTES];
  m2sed_store_digest(&picture, digest);
  assert_int_equal(m2sed_store_put_item(store, "a", 7, &picture, 1, NULL), 1);
  assert_int_equal(m2sed_store_retry(store, digest, 5000, NULL), 0);
  assert_int_equal(m2sed_store_get_item(store, "a", &item, NULL), 1);
  assert_int_equal(item.contents[0].attempts, 1);
  assert_int_equal(item.contents[0].not_before_ms, 5000);
  assert_int_equal(item.waiting, 1);
  char reason[M2SED_STORE_REASON_MAX + 100];
  memset(reason, 'x', sizeof reason);
  memcpy(reason, "not_a_picture", 13);
  reason[sizeof reason - 1] = '\0';
  assert_int_equal(m2sed_store_refuse(store, digest, reason, NULL), 0);
  assert_int_equal(m2sed_store_put_item(store, "a", 7, &picture, 1, NULL), 0);
  assert_int_equal(m2sed_store_put_item(store, "b", 8, &picture, 1, NULL), 0);
  assert_int_equal(m2sed_store_get_item(store, "b", &item, NULL), 1);
  assert_int_equal(item.version, 8);
  assert_int_equal(item.contents[0].state, M2SED_CONTENT_REFUSED);
  assert_int_equal(item.contents[0].reason_size, M2SED_STORE_REASON_MAX);
  assert_memory_equal(item.contents[0].reason, "not_a_picturexxx", 16);
  struct m2sed_store_counts counts = counts_of(store);
  assert_int_equal(counts.refused, 1);
  assert_int_equal(counts.waiting, 0);
  m2sed_store_delete_item(store, "a", NULL);
  m2sed_store_delete_item(store, "b", NULL);
  assert_int_equal(counts_of(store).refused, 0);
  m2sed_store_close(store);
}

static void test_another_model(void **state) {
  (void)state;
  struct m2sed_store *store = open_store(1);
  put(store, "a", "red", NULL);
  put(store, "b", "red", "blue");
  compute(store, "red", 1);
  compute(store, "blue", 2);
  m2sed_store_finish_item(store, "a", NULL);
  m2sed_store_finish_item(store, "b", NULL);
  assert_int_equal(m2sed_store_commit(store, NULL), 0);
  m2sed_store_close(store);

  store = open_store(2);
  expect_order(store, ""); // its texts come with its record
  assert_int_equal(put(store, "b", "red", "blue"), 2);
  expect_order(store, "b");
  assert_int_equal(item.waiting, 2);
  expect_row(&item.contents[0], 1); // the old one until then
  assert_false(item.contents[0].is_current);
  assert_memory_equal(item.contents[0].bytes, "red", 3);
  sound(store);
  compute(store, "red", 7);
  assert_int_equal(put(store, "a", "red", NULL), 0);
  assert_int_equal(m2sed_store_get_item(store, "a", &item, NULL), 1);
  expect_row(&item.contents[0], 7);
  assert_int_equal(m2sed_store_commit(store, NULL), 0);
  m2sed_store_close(store);

  store = open_store(1); // and back
  assert_int_equal(put(store, "b", "red", "blue"), 1);
  assert_int_equal(counts_of(store).waiting, 1); // red; blue is as it was
  m2sed_store_close(store);
}

static void test_uncommitted_is_undone(void **state) {
  (void)state;
  struct m2sed_store *store = open_store(1);
  put(store, "a", "1", NULL);
  assert_int_equal(m2sed_store_commit(store, NULL), 0);
  put(store, "b", "2", NULL);
  m2sed_store_rollback(store);
  assert_int_equal(counts_of(store).items, 1);
  put(store, "b", "2", NULL);
  m2sed_store_close(store);
  store = open_store(1);
  assert_int_equal(counts_of(store).items, 1);
  m2sed_store_close(store);
}

static void test_a_full_store_works_on(void **state) {
  (void)state;
  struct m2sed_store_options options = options_of(1);
  options.bytes_max = 1 << 20;
  struct m2sed_store *store;
  assert_int_equal(m2sed_store_open(&store, &options, NULL), 0);
  char *large = malloc(100000);
  assert_non_null(large);
  memset(large, 'x', 100000);
  struct m2se_error error = {0};
  int code = 0, count = 0;
  while (code >= 0) {
    struct m2sed_content content = {M2SED_CONTENT_TEXT, large, 100000U - (size_t)count};
    char id[16];
    snprintf(id, sizeof id, "%d", count);
    code = m2sed_store_put_item(store, id, 7, &content, 1, &error);
    code = code < 0 ? code : m2sed_store_commit(store, &error);
    count++;
    assert_true(count < 100);
  }
  assert_int_equal(code, M2SE_ELIMIT);
  assert_int_equal(counts_of(store).items, count - 1);
  assert_int_equal(m2sed_store_delete_item(store, "0", NULL), 0);
  assert_int_equal(m2sed_store_commit(store, NULL), 0);
  m2sed_store_rollback(store);
  assert_int_equal(put(store, "small", "x", NULL), 1);
  assert_int_equal(m2sed_store_commit(store, NULL), 0);
  free(large);
  m2sed_store_close(store);
}

static void test_refused_at_the_start(void **state) {
  (void)state;
  struct m2sed_store_options options = options_of(1);
  struct m2sed_store *store;
  struct m2se_error error = {0};
  options.read_only = true;
  assert_int_equal(m2sed_store_open(&store, &options, &error), M2SE_EMISSING);
  options.read_only = false;
  options.folder = "no/such/folder";
  assert_int_equal(m2sed_store_open(&store, &options, &error), M2SE_EMISSING);
  assert_non_null(strstr(error.text, "no/such/folder"));
  char path[64];
  snprintf(path, sizeof path, "%s/data.mdb", folder);
  int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  char page[8192] = "not a store";
  assert_int_equal(write(fd, page, sizeof page), sizeof page);
  close(fd);
  options.folder = folder;
  assert_int_equal(m2sed_store_open(&store, &options, &error), M2SE_EFORMAT);
  assert_null(store);
}

static void test_a_reader_beside_the_writer(void **state) {
  (void)state;
  struct m2sed_store *store = open_store(1);
  put(store, "a", "1", NULL);
  m2sed_store_commit(store, NULL);
  pid_t child = fork();
  if (child == 0) {
    struct m2sed_store_options options = options_of(1);
    options.read_only = true;
    struct m2sed_store *reader;
    struct m2sed_store_counts counts = {0};
    bool good = m2sed_store_open(&reader, &options, NULL) == 0 &&
                m2sed_store_count(reader, &counts, NULL) == 0 && counts.items == 1 && counts.pending == 1;
    _exit(good ? 0 : 1);
  }
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
  m2sed_store_close(store);
}

/* What the killed process does: one item and one text a commit, the row of the item before; every third one
 * is deleted or changed later. *done: how many commits there were. */
static void work(uint32_t *done) {
  struct m2sed_store *store = open_store(1);
  for (uint32_t n = *done;; n++) {
    char id[16], one[16];
    snprintf(id, sizeof id, "%u", n);
    snprintf(one, sizeof one, "text %u", n);
    put(store, id, one, "shared");
    if (n >= 3) {
      snprintf(one, sizeof one, "text %u", n - 1);
      compute(store, one, (float)n);
      snprintf(id, sizeof id, "%u", n - 3);
      if (n % 3 == 0)
        m2sed_store_delete_item(store, id, NULL);
      else if (n % 3 == 1)
        put(store, id, "changed", NULL);
    }
    assert_int_equal(m2sed_store_commit(store, NULL), 0);
    *done = n + 1;
  }
}

static void test_killed_at_any_moment(void **state) {
  (void)state;
  uint32_t *done = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  assert_true(done != MAP_FAILED);
  bool is_long = getenv("M2SED_LONG") != NULL;
  srand48(1);
  for (int life = 0; life < (is_long ? 600 : 60); life++) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
      work(done);
      _exit(1);
    }
    usleep(2000 + (useconds_t)(lrand48() % 60000));
    kill(child, SIGKILL);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    struct m2sed_store *store = open_store(1);
    sound(store);
    if (*done > 0) { // what was committed is there
      char id[16];
      snprintf(id, sizeof id, "%u", *done - 1);
      assert_int_equal(m2sed_store_get_item(store, id, &item, NULL), 1);
      assert_int_equal(item.content_count, 2);
    }
    if (*done > 4) {
      char id[16];
      snprintf(id, sizeof id, "%u", *done - 2);
      assert_int_equal(m2sed_store_get_item(store, id, &item, NULL), 1);
      expect_row(&item.contents[0], (float)(*done - 1));
    }
    m2sed_store_close(store);
  }
  printf("%u commits, killed at any moment\n", *done);
  assert_true(*done > 20);
  munmap(done, 4096);
}

int main(void) {
  if (!mkdtemp(folder))
    return 1;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_teardown(test_digest, empty_folder),
      cmocka_unit_test_teardown(test_a_text_is_computed_once, empty_folder),
      cmocka_unit_test_teardown(test_changes_and_deletions, empty_folder),
      cmocka_unit_test_teardown(test_the_newest_first, empty_folder),
      cmocka_unit_test_teardown(test_poison_and_retries, empty_folder),
      cmocka_unit_test_teardown(test_another_model, empty_folder),
      cmocka_unit_test_teardown(test_uncommitted_is_undone, empty_folder),
      cmocka_unit_test_teardown(test_a_full_store_works_on, empty_folder),
      cmocka_unit_test_teardown(test_refused_at_the_start, empty_folder),
      cmocka_unit_test_teardown(test_a_reader_beside_the_writer, empty_folder),
      cmocka_unit_test_teardown(test_killed_at_any_moment, empty_folder),
  };
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  rmdir(folder);
  return failed;
}
