/* What is published, as redis-cli would see it and as m2sectl reads it back. */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ingest/publish.h"
#include "ingest/redis_reader.h"
#include "redis_rig.h"

enum { DIM = 129 };

struct stage {
  struct redis_rig rig;
  struct m2se_publisher *publisher;
  struct m2se_redis_reader *reader;
  uint32_t done, failed;
  char error[256];
};

static void on_done(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  struct stage *stage = context;
  assert_int_equal(status == 0, reply != NULL);
  stage->done++;
  if (status) {
    stage->failed++;
    snprintf(stage->error, sizeof stage->error, "%s", error);
  }
}

static int set_up(void **state) {
  struct stage *stage = calloc(1, sizeof *stage);
  assert_non_null(stage);
  rig_start(&stage->rig);
  rig_connect(&stage->rig, NULL, NULL);
  struct m2se_error error = {0};
  const struct m2se_publish_settings settings = {.prefix = "m2se:", .user_ttl_seconds = 1000};
  if (m2se_publisher_new(&stage->publisher, stage->rig.redis, &settings, &error) ||
      m2se_redis_reader_open(&stage->reader, m2se_redis_child_uri(stage->rig.child), "m2se:", 2000, &error))
    fail_msg("%s", error.text);
  *state = stage;
  return 0;
}

static int tear_down(void **state) {
  struct stage *stage = *state;
  m2se_redis_reader_close(stage->reader);
  rig_close(&stage->rig);
  m2se_publisher_free(stage->publisher);
  rig_stop(&stage->rig);
  free(stage);
  return 0;
}

static void fill(float *vector, float value) {
  for (uint32_t i = 0; i < DIM; i++)
    vector[i] = value + (float)i / 8;
}

static void check(const float *vector, uint32_t dim, float value) {
  assert_int_equal(dim, DIM);
  for (uint32_t i = 0; i < DIM; i++)
    assert_true(vector[i] == value + (float)i / 8);
}

static void publish_user_until(struct stage *stage, const char *id, float value, uint64_t epoch,
                               int64_t ends_ms) {
  float vector[DIM];
  fill(vector, value);
  const struct m2se_user_vector user = {id, (uint32_t)strlen(id), vector, DIM, epoch, 77,
                                        5,  1234567890123,        ends_ms};
  assert_int_equal(m2se_publish_user(stage->publisher, &user, on_done, stage), 0);
}

static void publish_user(struct stage *stage, const char *id, float value, uint64_t epoch) {
  publish_user_until(stage, id, value, epoch, 0);
}

static void publish_item(struct stage *stage, const char *id, float value, uint64_t epoch) {
  float vector[DIM];
  fill(vector, value);
  assert_int_equal(
      m2se_publish_item(stage->publisher, id, (uint32_t)strlen(id), vector, DIM, epoch, on_done, stage), 0);
}

static void test_user(void **state) {
  struct stage *stage = *state;
  publish_user(stage, "anna{1}", 1, 3);
  publish_user(stage, "anna{1}", 2, 4);
  rig_run_until(&stage->rig, &stage->done, 2);
  assert_int_equal(stage->failed, 0);
  const char *key = "m2se:user:anna%7B1%7D";
  assert_string_equal(rig_admin(&stage->rig, "HGET %s epoch", key), "4");
  assert_string_equal(rig_admin(&stage->rig, "HGET %s step", key), "77");
  assert_string_equal(rig_admin(&stage->rig, "HGET %s n", key), "5");
  assert_string_equal(rig_admin(&stage->rig, "HGET %s event_ms", key), "1234567890123");
  assert_string_equal(rig_admin(&stage->rig, "HSTRLEN %s v", key), "516");
  assert_in_range(strtoul(rig_admin(&stage->rig, "TTL %s", key), NULL, 10), 990, 1000);
  assert_string_equal(rig_admin(&stage->rig, "OBJECT ENCODING %s", key), "listpack");
  struct m2se_user_vector user;
  struct m2se_error error = {0};
  assert_int_equal(m2se_redis_read_user(stage->reader, "anna{1}", 7, &user, &error), 0);
  check(user.vector, user.dim, 2);
  assert_true(user.epoch == 4 && user.step == 77 && user.sequence_count == 5 &&
              user.event_time_ms == 1234567890123);
  assert_int_equal(m2se_redis_read_user(stage->reader, "otto", 4, &user, &error), M2SE_EMISSING);
  assert_non_null(strstr(error.text, "m2se:user:otto"));
}

/* What the sweep writes ends with the sequence; what an event writes lives its full time again. */
static void test_user_ends_with_sequence(void **state) {
  struct stage *stage = *state;
  publish_user(stage, "anna", 1, 3);
  publish_user_until(stage, "anna", 2, 4, 4102444800123);
  rig_run_until(&stage->rig, &stage->done, 2);
  assert_string_equal(rig_admin(&stage->rig, "PEXPIRETIME m2se:user:anna"), "4102444800123");
  publish_user(stage, "anna", 3, 4);
  publish_user_until(stage, "otto", 1, 4, 1000); /* its sequence has ended meanwhile */
  rig_run_until(&stage->rig, &stage->done, 4);
  assert_int_equal(stage->failed, 0);
  assert_in_range(strtoul(rig_admin(&stage->rig, "TTL m2se:user:anna"), NULL, 10), 990, 1000);
  assert_string_equal(rig_admin(&stage->rig, "EXISTS m2se:user:otto"), "0");
}

static void check_item(struct stage *stage, uint64_t epoch, float value, uint64_t previous_epoch,
                       float previous) {
  struct m2se_item_vectors item;
  struct m2se_error error = {0};
  rig_run_until(&stage->rig, &stage->done, 1);
  stage->done = 0;
  if (m2se_redis_read_item(stage->reader, "i", 1, &item, &error))
    fail_msg("%s", error.text);
  assert_int_equal(item.epoch, epoch);
  check(item.vector, item.dim, value);
  if (!previous_epoch) {
    assert_null(item.previous);
    return;
  }
  assert_int_equal(item.previous_epoch, previous_epoch);
  check(item.previous, item.previous_dim, previous);
}

/* An item's first vector was refused and comes again when that of the next epoch is there. */
static void test_item_out_of_order(void **state) {
  struct stage *stage = *state;
  publish_item(stage, "i", 1, 9);
  check_item(stage, 9, 1, 0, 0);
  publish_item(stage, "i", 2, 8);
  check_item(stage, 9, 1, 8, 2);
  publish_item(stage, "i", 3, 10);
  check_item(stage, 10, 3, 9, 1);
}

static void test_item_epochs(void **state) {
  struct stage *stage = *state;
  publish_item(stage, "i", 1, 8);
  check_item(stage, 8, 1, 0, 0);
  publish_item(stage, "i", 2, 8); /* the same epoch again: a crash, or new features */
  check_item(stage, 8, 2, 0, 0);
  publish_item(stage, "i", 3, 9);
  check_item(stage, 9, 3, 8, 2);
  publish_item(stage, "i", 4, 9);
  check_item(stage, 9, 4, 8, 2);
  publish_item(stage, "i", 5, 8); /* the epoch before, while the next is being written */
  check_item(stage, 9, 4, 8, 5);
  publish_item(stage, "i", 6, 10);
  check_item(stage, 10, 6, 9, 4);
  publish_item(stage, "i", 7, 5); /* after a rollback */
  check_item(stage, 5, 7, 10, 6);
  publish_item(stage, "i", 8, 6);
  check_item(stage, 6, 8, 5, 7);
  rig_admin(&stage->rig, "CONFIG SET maxmemory 1"); /* refused, and tried again */
  publish_item(stage, "i", 9, 7);
  rig_run_until(&stage->rig, &stage->rig.events[M2SE_REDIS_REFUSED], 1);
  rig_admin(&stage->rig, "CONFIG SET maxmemory 0");
  check_item(stage, 7, 9, 6, 8);
}

struct visits {
  uint32_t count, missing;
  uint64_t epochs;
};

static void on_item(void *context, uint32_t index, const struct m2se_item_vectors *item) {
  struct visits *visits = context;
  assert_int_equal(index, visits->count);
  visits->count++;
  visits->missing += item == NULL;
  if (item) {
    visits->epochs += item->epoch;
    check(item->vector, item->dim, (float)index);
  }
}

struct ids {
  uint32_t count, limit;
  bool seen[700];
};

static bool on_id(void *context, const char *id, uint32_t id_size) {
  struct ids *ids = context;
  assert_int_equal(strlen(id), id_size);
  unsigned long number = strtoul(id + 1, NULL, 10);
  assert_true(id[0] == '{' && number < 700);
  ids->count += !ids->seen[number];
  ids->seen[number] = true;
  return ids->count < ids->limit;
}

static void test_many_items(void **state) {
  struct stage *stage = *state;
  enum { ITEMS = 700 };
  static char ids[ITEMS][16];
  const char *pointers[ITEMS];
  uint32_t published = 0;
  for (uint32_t i = 0; i < ITEMS; i++) {
    snprintf(ids[i], sizeof ids[i], "{%u", i);
    pointers[i] = ids[i];
    if (i % 7 != 3) {
      publish_item(stage, ids[i], (float)i, 1);
      published++;
    }
  }
  rig_run_until(&stage->rig, &stage->done, published);
  rig_admin(&stage->rig, "SET m2se:item:{7 x"); /* not an id's key: a brace as it is */
  struct visits visits = {0};
  struct m2se_error error = {0};
  assert_int_equal(m2se_redis_read_items(stage->reader, pointers, ITEMS, on_item, &visits, &error), 0);
  assert_int_equal(visits.count, ITEMS);
  assert_int_equal(visits.missing, 100);
  assert_int_equal(visits.epochs, published);
  struct ids found = {.limit = ITEMS + 1};
  assert_int_equal(m2se_redis_read_ids(stage->reader, M2SE_KEY_ITEM, on_id, &found, &error), 0);
  assert_int_equal(found.count, published);
  found = (struct ids){.limit = 5};
  assert_int_equal(m2se_redis_read_ids(stage->reader, M2SE_KEY_ITEM, on_id, &found, &error), 0);
  assert_int_equal(found.count, 5);
  /* A damaged one ends it, and the reader goes on to be of use. */
  rig_admin(&stage->rig, "HSET m2se:item:%%7B300 v abc");
  visits = (struct visits){0};
  assert_int_equal(m2se_redis_read_items(stage->reader, pointers, ITEMS, on_item, &visits, &error),
                   M2SE_EFORMAT);
  assert_int_equal(visits.count, 300);
  assert_non_null(strstr(error.text, "m2se:item:%7B300, field v"));
  char version[32];
  assert_int_equal(m2se_redis_read_version(stage->reader, version, &error), 0);
  assert_in_range(version[0], '1', '9');
}

static void test_model_and_status(void **state) {
  struct stage *stage = *state;
  struct m2se_published_model model = {.epoch = 1ull << 60, .step = 2, .dim = DIM, .lineage = "0123abc"},
                              back;
  struct m2se_error error = {0};
  assert_int_equal(m2se_redis_read_model(stage->reader, &back, &error), M2SE_EMISSING);
  assert_int_equal(m2se_publish_model(stage->publisher, &model, on_done, stage), 0);
  assert_int_equal(m2se_publish_status(stage->publisher, "\n\0status", 8, on_done, stage), 0);
  rig_run_until(&stage->rig, &stage->done, 2);
  assert_string_equal(rig_admin(&stage->rig, "HGET m2se:model metric"), "ip");
  assert_int_equal(m2se_redis_read_model(stage->reader, &back, &error), 0);
  assert_true(back.epoch == model.epoch && back.step == 2 && back.dim == DIM);
  assert_string_equal(back.lineage, "0123abc");
  const void *status;
  size_t size;
  assert_int_equal(m2se_redis_read_status(stage->reader, &status, &size, &error), 0);
  assert_int_equal(size, 8);
  assert_memory_equal(status, "\n\0status", 8);
  rig_admin(&stage->rig, "HSET m2se:model epoch -1");
  assert_int_equal(m2se_redis_read_model(stage->reader, &back, &error), M2SE_EFORMAT);
  assert_non_null(strstr(error.text, "field epoch"));
  rig_admin(&stage->rig, "DEL m2se:status");
  rig_admin(&stage->rig, "HSET m2se:status a b");
  assert_int_equal(m2se_redis_read_status(stage->reader, &status, &size, &error), M2SE_EFORMAT);
}

/* A restart with another vector type: both stand side by side, and the reader tells them apart. */
static void test_float16(void **state) {
  struct stage *stage = *state;
  publish_item(stage, "i", 1, 8);
  publish_user(stage, "u", 1, 8);
  rig_run_until(&stage->rig, &stage->done, 2);
  stage->done = 0;
  struct m2se_publisher *before = stage->publisher;
  const struct m2se_publish_settings settings = {
      .prefix = "m2se:", .user_ttl_seconds = 1000, .vector_type = M2SE_VECTOR_FLOAT16};
  struct m2se_error error = {0};
  assert_int_equal(m2se_publisher_new(&stage->publisher, stage->rig.redis, &settings, &error), 0);
  struct m2se_published_model model = {.epoch = 9, .step = 2, .dim = DIM, .lineage = "0123abc"};
  assert_int_equal(m2se_publish_model(stage->publisher, &model, on_done, stage), 0);
  publish_user(stage, "new", 2, 9);
  rig_run_until(&stage->rig, &stage->done, 2);
  stage->done = 0;
  assert_string_equal(rig_admin(&stage->rig, "HSTRLEN m2se:user:new v"), "258");
  assert_string_equal(rig_admin(&stage->rig, "HGET m2se:model type"), "float16");
  assert_int_equal(m2se_redis_read_model(stage->reader, &model, &error), 0);
  assert_int_equal(model.type, M2SE_VECTOR_FLOAT16);
  publish_item(stage, "i", 2, 9);
  check_item(stage, 9, 2, 8, 1);
  struct m2se_user_vector user;
  assert_int_equal(m2se_redis_read_user(stage->reader, "u", 1, &user, &error), 0);
  check(user.vector, user.dim, 1);
  assert_int_equal(m2se_redis_read_user(stage->reader, "new", 3, &user, &error), 0);
  check(user.vector, user.dim, 2);
  float wide[DIM] = {70000};
  user = (struct m2se_user_vector){"u", 1, wide, DIM, 9, 1, 1, 1, 0};
  assert_int_equal(m2se_publish_user(stage->publisher, &user, on_done, stage), M2SE_ERANGE);
  assert_int_equal(m2se_publish_item(stage->publisher, "i", 1, wide, DIM, 9, on_done, stage), M2SE_ERANGE);
  m2se_publisher_free(before);
}

static void test_deletion(void **state) {
  struct stage *stage = *state;
  publish_user(stage, "u", 1, 1);
  publish_item(stage, "i", 1, 1);
  rig_run_until(&stage->rig, &stage->done, 2);
  rig_admin(&stage->rig, "SET m2se:seq:u x");
  rig_admin(&stage->rig, "ZADD m2se:near:i 1 j");
  rig_admin(&stage->rig, "SET m2se:user:other x");
  assert_int_equal(m2se_publish_user_erase(stage->publisher, "u", 1, on_done, stage), 0);
  assert_int_equal(m2se_publish_item_delete(stage->publisher, "i", 1, on_done, stage), 0);
  rig_run_until(&stage->rig, &stage->done, 4);
  assert_int_equal(stage->failed, 0);
  assert_string_equal(rig_admin(&stage->rig, "DBSIZE"), "1");
}

static void test_foreign_type(void **state) {
  struct stage *stage = *state;
  rig_admin(&stage->rig, "SET m2se:user:u x");
  publish_user(stage, "u", 1, 1); /* HSET fails, EXPIRE behind it does not: the group has failed */
  rig_run_until(&stage->rig, &stage->done, 1);
  assert_int_equal(stage->failed, 1);
  assert_non_null(strstr(stage->error, "WRONGTYPE"));
  struct m2se_user_vector user;
  struct m2se_error error = {0};
  assert_int_equal(m2se_redis_read_user(stage->reader, "u", 1, &user, &error), M2SE_EFORMAT);
}

static void test_reader_errors(void **state) {
  struct stage *stage = *state;
  struct m2se_redis_reader *reader = NULL;
  struct m2se_error error = {0};
  assert_int_equal(m2se_redis_reader_open(&reader, "unix:///nowhere/redis.sock", "", 100, &error), M2SE_EIO);
  assert_non_null(strstr(error.text, "/nowhere/redis.sock"));
  assert_int_equal(m2se_redis_reader_open(&reader, "unix:///x", "{", 100, &error), M2SE_EINVAL);
  assert_int_equal(m2se_redis_reader_open(&reader, "x", "", 100, &error), M2SE_EINVAL);
  static struct m2se_sequence sequence;
  assert_int_equal(m2se_redis_read_sequence(stage->reader, "u", 1, &sequence, &error), M2SE_EMISSING);
  rig_admin(&stage->rig, "SET m2se:seq:u damaged");
  assert_int_equal(m2se_redis_read_sequence(stage->reader, "u", 1, &sequence, &error), M2SE_EFORMAT);
  assert_non_null(strstr(error.text, "m2se:seq:u"));
  kill(m2se_redis_child_pid(stage->rig.child), SIGSTOP);
  int64_t begin = rig_now_ms();
  assert_int_equal(m2se_redis_read_sequence(stage->reader, "u", 1, &sequence, &error), M2SE_EIO);
  assert_in_range(rig_now_ms() - begin, 1500, 10000);
  kill(m2se_redis_child_pid(stage->rig.child), SIGCONT);
}

#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
  signal(SIGPIPE, SIG_IGN);
  int status = rig_check_server();
  if (status)
    return status;
  const struct CMUnitTest tests[] = {
      WITH_SERVER(test_user),
      WITH_SERVER(test_user_ends_with_sequence),
      WITH_SERVER(test_item_epochs),
      WITH_SERVER(test_item_out_of_order),
      WITH_SERVER(test_many_items),
      WITH_SERVER(test_deletion),
      WITH_SERVER(test_model_and_status),
      WITH_SERVER(test_foreign_type),
      WITH_SERVER(test_reader_errors),
      WITH_SERVER(test_float16),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
