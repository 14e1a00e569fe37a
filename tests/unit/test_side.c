// The side thread with an encoder made for the test: a text's row is made of its bytes, a picture's of its
// size.
#include <ftw.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#include "daemon/features/side.h"

enum { DIM = 2 };
static char folder[] = "/tmp/m2sed-side-XXXXXX";

struct encoder {
  pthread_mutex_t gate; // held by a test: nothing is computed meanwhile
  atomic_uint texts, batches, pictures, rooms, fail;
};
static struct encoder encoder = {.gate = PTHREAD_MUTEX_INITIALIZER};

static float first_of(const char *text) {
  float sum = 0;
  for (; *text; text++)
    sum = sum * 2 + (float)*text;
  return sum;
}

static int encode_texts(void *self, const struct m2sed_embed_text *texts, uint32_t count, float *rows,
                        struct m2se_error *error) {
  struct encoder *own = self;
  pthread_mutex_lock(&own->gate);
  pthread_mutex_unlock(&own->gate);
  own->batches++;
  int code = 0;
  for (uint32_t i = 0; i < count; i++) {
    char copy[64] = "";
    memcpy(copy, texts[i].data, texts[i].size < sizeof copy ? texts[i].size : sizeof copy - 1);
    rows[i * DIM] = strcmp(copy, "nan") ? first_of(copy) : NAN;
    rows[i * DIM + 1] = (float)texts[i].size;
    if (strcmp(copy, "poison") == 0 || atomic_load(&own->fail))
      code = m2se_error_set(error, M2SE_EFORMAT, "this text cannot be read");
    else
      own->texts++;
  }
  return code;
}

static int encode_picture(void *self, const struct m2sed_picture *picture, float *row,
                          struct m2se_error *error) {
  (void)error;
  struct encoder *own = self;
  own->pictures++;
  row[0] = (float)picture->width;
  row[1] = (float)picture->height;
  return 0;
}

static void on_room(void *arg) {
  ((struct encoder *)arg)->rooms++;
}

static int remove_one(const char *path, const struct stat *about, int kind, struct FTW *where) {
  (void)about;
  (void)kind;
  return where->level ? remove(path) : 0;
}

static int begin_anew(void **state) {
  (void)state;
  encoder.texts = encoder.batches = encoder.pictures = encoder.rooms = encoder.fail = 0;
  return nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static struct m2sed_side_settings settings_of(uint8_t model) {
  struct m2sed_side_settings settings = {
      .store = {.folder = folder, .bytes_max = 64 << 20},
      .pictures = {.helper = M2SED_HELPER},
      .image_root = M2SE_PICTURES,
      .records_max = 64,
      .bytes_max = 1 << 20,
      .retry_ms = 1,
  };
  memset(settings.store.models, model, sizeof settings.store.models);
  return settings;
}

static struct m2sed_side *start_with(const struct m2sed_side_settings *settings, bool with_pictures) {
  struct m2sed_embedder embedder = {&encoder, DIM, encode_texts, with_pictures ? encode_picture : NULL};
  struct m2sed_side *side;
  struct m2se_error error = {0};
  if (m2sed_side_new(&side, settings, &embedder, &error) != 0)
    fail_msg("%s", error.text);
  m2sed_side_notify(side, (struct m2sed_notify){on_room, &encoder}, (struct m2sed_notify){0});
  assert_int_equal(m2sed_side_start(side, &error), 0);
  return side;
}

static struct m2sed_side *start(uint8_t model) {
  struct m2sed_side_settings settings = settings_of(model);
  return start_with(&settings, true);
}

static void end(struct m2sed_side *side) {
  m2sed_side_stop(side);
  m2sed_side_free(side);
}

static struct m2se_bytes bytes(const char *text) {
  return (struct m2se_bytes){text, strlen(text)};
}

// texts: "|" between them. picture: a path or NULL.
static struct m2sed_side_record *record_of(const char *id, uint64_t version, const char *texts,
                                           const char *picture) {
  struct m2se_bytes list[8];
  struct m2se_image_source image = {.path = bytes(picture ? picture : "")};
  struct m2se_item item = {
      .item_id = bytes(id), .texts = list, .images = &image, .image_count = picture != NULL};
  for (const char *at = texts; *at;) {
    size_t size = strcspn(at, "|");
    list[item.text_count++] = (struct m2se_bytes){at, size};
    at += size + (at[size] != '\0');
  }
  struct m2sed_side_record *record = m2sed_side_record_new(&item, version);
  assert_non_null(record);
  return record;
}

static void offer(struct m2sed_side *side, struct m2sed_side_record *record) {
  for (int ms = 0; !m2sed_side_offer(side, record); ms++) {
    assert_true(ms < 20000);
    usleep(1000);
  }
}

// The next result; it must come. Free.
static struct m2sed_side_result *result_of(struct m2sed_side *side) {
  for (int ms = 0; ms < 20000; ms++) {
    struct m2sed_side_result *result = m2sed_side_take(side);
    if (result)
      return result;
    usleep(1000);
  }
  fail_msg("no result: %s", m2sed_side_count(side).problem);
  return NULL;
}

static void expect(struct m2sed_side *side, const char *id, uint64_t version, uint32_t texts,
                   uint32_t pictures, uint32_t refused) {
  struct m2sed_side_result *result = result_of(side);
  assert_string_equal(result->id, id);
  assert_int_equal(result->version, version);
  assert_int_equal(result->text_count, texts);
  assert_int_equal(result->image_count, pictures);
  assert_int_equal(result->refused, refused);
  assert_false(result->is_old);
  free(result);
}

static struct m2sed_side_counters counters_when_idle(struct m2sed_side *side) {
  struct m2sed_side_counters counters;
  for (int ms = 0; ms < 20000; ms++) {
    counters = m2sed_side_count(side);
    if (counters.records > 0 && counters.store.pending == 0)
      return counters;
    usleep(1000);
  }
  fail_msg("still busy: %s", counters.problem);
  return counters;
}

static void test_rows(void **state) {
  (void)state;
  struct m2sed_side *side = start(1);
  offer(side, record_of("shoe", 5, "red|a red shoe", "420.jpg"));
  struct m2sed_side_result *result = result_of(side);
  assert_int_equal(result->dim, DIM);
  assert_int_equal(result->text_count, 2);
  assert_int_equal(result->image_count, 1);
  const float expected[] = {first_of("red"), 3, first_of("a red shoe"), 10, 23, 14};
  assert_memory_equal(result->rows, expected, sizeof expected);
  free(result);
  offer(side, record_of("plain", 6, "", NULL));
  expect(side, "plain", 6, 0, 0, 0);
  end(side);
}

static void test_nothing_is_computed_twice(void **state) {
  (void)state;
  struct m2sed_side *side = start(1);
  offer(side, record_of("a", 1, "red|shoe", "rgba.png"));
  expect(side, "a", 1, 2, 1, 0);
  offer(side, record_of("b", 2, "shoe|red|red", "rgba.png"));
  expect(side, "b", 2, 3, 1, 0);
  offer(side, record_of("a", 3, "red|blue", "rgba.png"));
  expect(side, "a", 3, 2, 1, 0);
  end(side);
  side = start(1);
  offer(side, record_of("a", 3, "red|blue", "rgba.png"));
  expect(side, "a", 3, 2, 1, 0);
  struct m2sed_side_counters counters = counters_when_idle(side);
  assert_int_equal(counters.texts, 0);
  assert_int_equal(counters.store.contents, 4);
  end(side);
  assert_int_equal(encoder.texts, 3); // red, shoe, blue
  assert_int_equal(encoder.pictures, 1);
}

static void test_the_newest_first(void **state) {
  (void)state;
  struct m2sed_side *side = start(1);
  pthread_mutex_lock(&encoder.gate);
  offer(side, record_of("in work", 1, "in work", NULL));
  usleep(100000);
  char id[16];
  for (uint64_t n = 2; n < 60; n++) {
    snprintf(id, sizeof id, "%d", (int)n);
    offer(side, record_of(id, n, id, NULL));
  }
  pthread_mutex_unlock(&encoder.gate);
  uint32_t newer = 0; // of the first mini-batch after the one in work
  for (uint32_t n = 1; n < 60; n++) {
    struct m2sed_side_result *result = result_of(side);
    newer += n > 1 && n <= 1 + M2SED_SIDE_TEXTS_MAX && result->version >= 60 - M2SED_SIDE_TEXTS_MAX;
    assert_int_equal(result->text_count, 1);
    free(result);
  }
  assert_true(newer >= M2SED_SIDE_TEXTS_MAX - 1); // the item that was in work comes with them
  assert_true(encoder.batches <= 4);
  end(side);
}

static void test_poison_is_set_aside(void **state) {
  (void)state;
  struct m2sed_side *side = start(1);
  pthread_mutex_lock(&encoder.gate);
  offer(side, record_of("good", 1, "good", NULL));
  offer(side, record_of("bad", 2, "fine|poison", NULL));
  offer(side, record_of("worse", 3, "nan", NULL));
  pthread_mutex_unlock(&encoder.gate);
  uint32_t seen = 0;
  for (int i = 0; i < 3; i++) {
    struct m2sed_side_result *result = result_of(side);
    assert_int_equal(result->text_count, result->version < 3);
    assert_int_equal(result->refused, result->version > 1);
    seen |= 1U << result->version;
    free(result);
  }
  assert_int_equal(seen, 14);
  struct m2sed_side_counters counters = counters_when_idle(side);
  assert_int_equal(counters.refused, 2);
  assert_int_equal(counters.store.refused, 2);
  assert_true(counters.retries >= 4);
  uint32_t batches = encoder.batches;
  offer(side, record_of("again", 4, "poison", NULL)); // is known
  expect(side, "again", 4, 0, 0, 1);
  assert_int_equal(encoder.batches, batches);
  end(side);
}

static void test_pictures_that_are_none(void **state) {
  (void)state;
  struct m2sed_side_settings settings = settings_of(1);
  struct m2sed_side *side = start_with(&settings, true);
  offer(side, record_of("none", 1, "text", "none.jpg"));
  expect(side, "none", 1, 1, 0, 1);
  offer(side, record_of("outside", 2, "text", "../picture_reply/ok"));
  expect(side, "outside", 2, 1, 0, 1);
  struct m2se_image_source gif = {.data = bytes("GIF89a")};
  struct m2se_item item = {.item_id = bytes("gif"), .images = &gif, .image_count = 1};
  offer(side, m2sed_side_record_new(&item, 3));
  expect(side, "gif", 3, 0, 0, 1);
  struct m2sed_side_counters counters = counters_when_idle(side);
  assert_int_equal(counters.decoded.by_reason[M2SED_PICTURE_NOT_FOUND], 1);
  assert_int_equal(counters.decoded.by_reason[M2SED_PICTURE_OUTSIDE], 1);
  assert_int_equal(counters.decoded.by_reason[M2SED_PICTURE_NOT_A_PICTURE], 1);
  end(side);
  side = start_with(&settings, false); // no image model: text only
  offer(side, record_of("none", 4, "text", "420.jpg"));
  expect(side, "none", 4, 1, 0, 0);
  end(side);
}

// Texts go on while the helper cannot be started, and the picture is not to blame.
static void test_no_helper(void **state) {
  (void)state;
  struct m2sed_side_settings settings = settings_of(1);
  settings.pictures.helper = "/bin/false";
  struct m2sed_side *side = start_with(&settings, true);
  offer(side, record_of("shoe", 1, "red", "420.jpg"));
  offer(side, record_of("text", 2, "blue", NULL));
  expect(side, "text", 2, 1, 0, 0);
  for (int ms = 0; m2sed_side_count(side).helper_errors == 0; ms++) {
    assert_true(ms < 20000);
    usleep(1000);
  }
  assert_non_null(strstr(m2sed_side_count(side).problem, "/bin/false"));
  end(side);
  side = start(1);
  offer(side, record_of("shoe", 1, "red", "420.jpg"));
  expect(side, "shoe", 1, 1, 1, 0);
  end(side);
  assert_int_equal(encoder.texts, 2);
}

static void test_another_model(void **state) {
  (void)state;
  struct m2sed_side *side = start(1);
  offer(side, record_of("a", 1, "red", NULL));
  expect(side, "a", 1, 1, 0, 0);
  end(side);
  side = start(2);
  offer(side, record_of("a", 1, "red", NULL));
  struct m2sed_side_result *result = result_of(side);
  assert_true(result->is_old);
  assert_int_equal(result->text_count, 1);
  free(result);
  expect(side, "a", 1, 1, 0, 0);
  assert_int_equal(encoder.texts, 2);
  end(side);
}

static void test_deletion(void **state) {
  (void)state;
  struct m2sed_side *side = start(1);
  offer(side, record_of("a", 1, "red", NULL));
  expect(side, "a", 1, 1, 0, 0);
  offer(side, m2sed_side_record_deletion("a", 2));
  for (int ms = 0; m2sed_side_count(side).store.items != 0 || m2sed_side_count(side).records != 2; ms++) {
    assert_true(ms < 20000);
    usleep(1000);
  }
  assert_int_equal(m2sed_side_count(side).store.contents, 0);
  assert_null(m2sed_side_take(side));
  end(side);
}

static void test_what_waits_is_bounded(void **state) {
  (void)state;
  struct m2sed_side_settings settings = settings_of(1);
  settings.bytes_max = 64 << 10;
  struct m2sed_side *side = start_with(&settings, false);
  pthread_mutex_lock(&encoder.gate);
  offer(side, record_of("in work", 1, "in work", NULL));
  usleep(100000);
  uint32_t offered = 0;
  struct m2sed_side_record *record;
  while (m2sed_side_offer(side, record = record_of("a", 2 + offered, "text", NULL)))
    assert_true(++offered <= settings.records_max);
  m2sed_side_record_free(record);
  assert_int_equal(encoder.rooms, 0);
  pthread_mutex_unlock(&encoder.gate);
  for (int ms = 0; encoder.rooms == 0; ms++) {
    assert_true(ms < 20000);
    usleep(1000);
  }
  char *long_text = malloc(100000); // more than fits, but alone
  assert_non_null(long_text);
  memset(long_text, ' ', 99999);
  long_text[99999] = '\0';
  struct m2se_bytes text = bytes(long_text);
  struct m2se_item item = {.item_id = bytes("long"), .texts = &text, .text_count = 1};
  offer(side, m2sed_side_record_new(&item, 99));
  free(long_text);
  end(side);
}

// Stopped again and again while it works: every item has its result in the end, few are computed again.
static void test_stopped_while_it_works(void **state) {
  (void)state;
  enum { ITEMS = 300 };
  bool done[ITEMS] = {0};
  uint32_t left = ITEMS, lives = 0;
  for (; left > 0; lives++) {
    assert_true(lives < 200);
    struct m2sed_side *side = start(1);
    uint32_t offered = 0;
    struct timespec begin, now;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    do {
      char id[16];
      snprintf(id, sizeof id, "%u", offered);
      if (offered < ITEMS) {
        struct m2sed_side_record *record = record_of(id, offered + 1, id, NULL);
        if (m2sed_side_offer(side, record))
          offered++;
        else
          m2sed_side_record_free(record);
      }
      struct m2sed_side_result *result = m2sed_side_take(side);
      if (result && !done[result->version - 1]) {
        assert_int_equal(result->text_count, 1);
        done[result->version - 1] = true;
        left--;
      }
      free(result);
      clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((now.tv_sec - begin.tv_sec) * 1000 + (now.tv_nsec - begin.tv_nsec) / 1000000 < 5 + 5 * lives);
    end(side);
  }
  printf("%u lives, %u texts computed for %d\n", lives, encoder.texts, ITEMS);
  assert_int_equal(encoder.texts, ITEMS); // stopping waits for the mini-batch in work
}

int main(void) {
  if (!mkdtemp(folder))
    return 1;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup(test_rows, begin_anew),
      cmocka_unit_test_setup(test_nothing_is_computed_twice, begin_anew),
      cmocka_unit_test_setup(test_the_newest_first, begin_anew),
      cmocka_unit_test_setup(test_poison_is_set_aside, begin_anew),
      cmocka_unit_test_setup(test_pictures_that_are_none, begin_anew),
      cmocka_unit_test_setup(test_no_helper, begin_anew),
      cmocka_unit_test_setup(test_another_model, begin_anew),
      cmocka_unit_test_setup(test_deletion, begin_anew),
      cmocka_unit_test_setup(test_what_waits_is_bounded, begin_anew),
      cmocka_unit_test_setup(test_stopped_while_it_works, begin_anew),
  };
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  begin_anew(NULL);
  rmdir(folder);
  return failed;
}
