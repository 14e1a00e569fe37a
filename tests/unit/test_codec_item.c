// Items as producers may write them: protobuf, JSON with base64, rows of numbers, pictures; and what is
// refused.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "codec_rig.h"
#include "ingest/codec.h"
#include "proto/m2se.pb-c.h"

static struct m2se_arena arena;
static struct m2se_item decoded;
static uint8_t value[M2SE_ITEM_BYTES_MAX + 1024];

static int make_arena(void **state) {
  (void)state;
  return m2se_arena_new(&arena, M2SE_ITEM_ARENA_BYTES);
}

static int free_arena(void **state) {
  (void)state;
  m2se_arena_free(&arena);
  return 0;
}

static int decode(const void *bytes, size_t size, uint32_t dim, struct m2se_refusal *refusal) {
  uint8_t *copy = exact_copy(bytes, size);
  int code = m2se_item_decode(&decoded, &arena, copy, size, dim, refusal);
  destroy_copy(copy, size);
  return code;
}

static void accept(const void *bytes, size_t size, uint32_t dim) {
  struct m2se_refusal refusal = {.text = ""};
  if (decode(bytes, size, dim, &refusal))
    fail_msg("refused: %s", refusal.text);
}

static void refuse(const void *bytes, size_t size, uint32_t dim, enum m2se_rule rule, const char *why) {
  struct m2se_refusal refusal;
  check_refusal(decode(bytes, size, dim, &refusal), &refusal, rule, why);
}

static void refuse_json(const char *members, enum m2se_rule rule, const char *why) {
  int size = snprintf((char *)value, sizeof value, "{\"item_id\":\"i\",%s}", members);
  refuse(value, (size_t)size, 0, rule, why);
}

static struct m2se_bytes bytes_of(const char *text) {
  return (struct m2se_bytes){text, strlen(text)};
}

static size_t encode(const struct m2se_item *item) {
  size_t size = m2se_item_encode(item, value, sizeof value);
  assert_in_range(size, 1, sizeof value);
  return size;
}

static const float six[] = {1, -2.5F, 3e-42F, 0.0F, -0.0F, 3.4e38F};

static void check_rows(const struct m2se_feature_rows *rows, uint32_t dim, uint32_t count,
                       const float *data) {
  assert_int_equal(rows->dim, dim);
  assert_int_equal(rows->count, count);
  assert_int_equal((uintptr_t)rows->data % 16, 0);
  assert_memory_equal(rows->data, data, sizeof(float) * dim * count);
}

static void check_full_item(void) {
  check_bytes(decoded.item_id, "film-7");
  check_bytes(decoded.title, "Le fabuleux destin");
  check_bytes(decoded.picture, "http://x/y.jpg");
  assert_int_equal(decoded.text_count, 2);
  check_bytes(decoded.texts[0], "d\xC3\xA9j\xC3\xA0 vu\n");
  check_bytes(decoded.texts[1], "");
  assert_int_equal(decoded.image_count, 2);
  assert_int_equal(decoded.images[0].data.size, 3);
  assert_memory_equal(decoded.images[0].data.data, "\xFF\0\xFB", 3);
  check_bytes(decoded.images[0].path, "");
  check_bytes(decoded.images[1].data, "");
  check_bytes(decoded.images[1].path, "a/..b.jpg");
  check_rows(&decoded.text_rows, 3, 2, six);
  check_rows(&decoded.image_rows, 3, 1, six + 3);
}

/* ---- protobuf ---- */

static void test_protobuf(void **state) {
  (void)state;
  char *texts[] = {(char *)(uintptr_t) "d\xC3\xA9j\xC3\xA0 vu\n", (char *)(uintptr_t) ""};
  M2se__V1__Image images[2] = {M2SE__V1__IMAGE__INIT, M2SE__V1__IMAGE__INIT};
  M2se__V1__Image *image_list[] = {&images[0], &images[1]};
  M2se__V1__Rows text_rows = M2SE__V1__ROWS__INIT, image_rows = M2SE__V1__ROWS__INIT;
  M2se__V1__Item message = M2SE__V1__ITEM__INIT;
  images[0].data = (ProtobufCBinaryData){3, (uint8_t *)(uintptr_t) "\xFF\0\xFB"};
  images[1].path = (char *)(uintptr_t) "a/..b.jpg";
  text_rows.dim = image_rows.dim = 3;
  text_rows.data = (ProtobufCBinaryData){sizeof six, (uint8_t *)(uintptr_t)six};
  image_rows.data = (ProtobufCBinaryData){sizeof six / 2, (uint8_t *)(uintptr_t)(six + 3)};
  message.item_id = (char *)(uintptr_t) "film-7";
  message.title = (char *)(uintptr_t) "Le fabuleux destin";
  message.picture = (char *)(uintptr_t) "http://x/y.jpg";
  message.texts = texts;
  message.n_texts = 2;
  message.images = image_list;
  message.n_images = 2;
  message.text_rows = &text_rows;
  message.image_rows = &image_rows;
  uint8_t packed[512], own[512];
  size_t size = m2se__v1__item__pack(&message, packed);
  accept(packed, size, 3);
  check_full_item();
  accept(packed, size, 0);
  check_full_item();
  assert_int_equal(m2se_item_encode(&decoded, own, sizeof own), size);
  assert_memory_equal(own, packed, size);
  assert_int_equal(m2se_item_encode(&decoded, NULL, 0), size);

  for (size_t i = 0; i < size; i++) // every beginning: refused, or an item with less
    if (decode(packed, i, 3, NULL) == 0)
      check_bytes(decoded.item_id, "film-7");
}

static void test_bare_item(void **state) {
  (void)state;
  struct m2se_item item = {.item_id = bytes_of("i")};
  assert_int_equal(encode(&item), 3); // what is not there takes no bytes
  accept(value, 3, 8);
  check_bytes(decoded.item_id, "i");
  check_bytes(decoded.title, "");
  check_bytes(decoded.picture, "");
  assert_int_equal(decoded.text_count + decoded.image_count, 0);
  assert_int_equal(decoded.text_rows.count + decoded.image_rows.count, 0);
  assert_int_equal(decoded.text_rows.dim + decoded.image_rows.dim, 0);
  accept("{\"itemId\":\"i\"}", 14, 8);
  check_bytes(decoded.item_id, "i");
  assert_int_equal(decoded.text_count + decoded.image_count, 0);
  refuse("{}", 2, 8, M2SE_RULE_ID, "item_id: missing");
  refuse("", 0, 8, M2SE_RULE_SIZE, "an empty value");
  // Id, then parts inside parts that are broken.
  refuse("\x0A\1i\x22\4\x0A\2\xFF\xFE", 9, 0, M2SE_RULE_FORMAT, "of another type"); // dim as bytes
  refuse("\x0A\1i\x12\1\xFF", 6, 0, M2SE_RULE_TEXT, "texts: not valid UTF-8");
  refuse("\x0A\1i\x1A\3\x12\1\xFF", 8, 0, M2SE_RULE_TEXT, "path: not valid UTF-8");
  refuse("\x0A\1i\x1A\3\x12\2x", 8, 0, M2SE_RULE_FORMAT, "Image: broken at byte 0");
}

/* An item of nothing but an id is what JSON behind a line feed could pass for. */
static void test_line_feed(void **state) {
  (void)state;
  int size = snprintf((char *)value, sizeof value, "\n{\"item_id\":\"i\",\"title\":\"%*s\"}", 125 - 27, "");
  assert_int_equal(size, 125); // as protobuf: one id of 123 bytes, none of them a control character
  assert_int_equal(value[1], 123);
  accept(value, (size_t)size, 0);
  check_bytes(decoded.item_id, "i");
  assert_int_equal(decoded.title.size, 98);
  value[size - 1] = ' '; // no JSON any more: so it is that id
  accept(value, (size_t)size, 0);
  assert_int_equal(decoded.item_id.size, 123);
}

/* ---- JSON ---- */

static void test_json(void **state) {
  (void)state;
  // six[0..6) and six[3..6) in base64, as Python writes them
  static const char *const same[] = {
      "{\"item_id\":\"film-7\",\"texts\":[\"d\xC3\xA9j\xC3\xA0 vu\\n\",\"\"],\"images\":[{\"data\":\"/wD7\"},"
      "{\"path\":\"a/..b.jpg\"}],\"text_rows\":{\"dim\":3,\"data\":\"AACAPwAAIMBdCAAAAAAAAAAAAICeyX9/\"},"
      "\"image_rows\":{\"dim\":\"3\",\"data\":\"AAAAAAAAAICeyX9/\"},\"title\":\"Le fabuleux destin\","
      "\"picture\":\"http://x/y.jpg\"}",
      " {\"imageRows\":{\"data\":\"AAAAAAAAAICeyX9_\",\"dim\":3.0},\"textRows\":{\"dim\":3,\"unit\":[1],"
      "\"data\":"
      "\"AACAPwAAIMBdCAAAAAAAAAAAAICeyX9_\"},\"picture\":\"http:\\/\\/x\\/"
      "y.jpg\",\"images\":[{\"data\":\"_wD7\","
      "\"path\":\"\"},{\"data\":null,\"path\":\"a/..b.jpg\",\"width\":7}],\"title\":\"Le fabuleux destin\","
      "\"texts\":[\"d\\u00e9j\\u00E0 vu\\n\",\"\"],\"itemId\":\"film-7\",\"price\":{\"eur\":9}}",
  };
  for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
    accept(same[i], strlen(same[i]), 3);
    check_full_item();
  }
  const char *nulls = "{\"item_id\":\"i\",\"texts\":null,\"images\":null,\"text_rows\":null,\"title\":null,"
                      "\"image_rows\":{\"dim\":null,\"data\":null}}";
  accept(nulls, strlen(nulls), 3);
  assert_int_equal(decoded.text_count + decoded.image_count, 0);
  assert_int_equal(decoded.text_rows.count + decoded.image_rows.count, 0);
}

static void test_base64(void **state) {
  (void)state;
  static const struct {
    const char *text, *bytes;
    size_t size;
  } good[] = {
      {"Zg==", "f", 1},
      {"Zg", "f", 1},
      {"Zm8=", "fo", 2},
      {"Zm8", "fo", 2},
      {"Zm9v", "foo", 3},
      {"Zm9vYg==", "foob", 4},
      {"Zm9vYmE=", "fooba", 5},
      {"Zm9vYmE", "fooba", 5},
      {"AAAA", "\0\0\0", 3},
      {"+/+/", "\xFB\xFF\xBF", 3},
      {"-_-_", "\xFB\xFF\xBF", 3},
      {"\\u0041AAA", "\0\0\0", 3},
  };
  for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
    char text[128];
    int size =
        snprintf(text, sizeof text, "{\"item_id\":\"i\",\"images\":[{\"data\":\"%s\"}]}", good[i].text);
    accept(text, (size_t)size, 0);
    assert_int_equal(decoded.images[0].data.size, good[i].size);
    assert_memory_equal(decoded.images[0].data.data, good[i].bytes, good[i].size);
  }
  static const char *const bad[] = {
      "A",    "AAAAA", "Zg=",         "=",     "====",  "A===",     "Zg==Zg==", "Zm9v\\n",
      "Zm 8", "Zm8!",  "Z\xC3\xA9==", "Zg===", "%2B==", "Zm9v====", "AA.A"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    char members[128];
    snprintf(members, sizeof members, "\"images\":[{\"data\":\"%s\"}]", bad[i]);
    refuse_json(members, M2SE_RULE_FORMAT, "data: not base64");
  }
}

static void test_refused_json(void **state) {
  (void)state;
  refuse_json("\"texts\":\"one\"", M2SE_RULE_FORMAT, "texts: string where an array is needed");
  refuse_json("\"texts\":[7]", M2SE_RULE_FORMAT, "texts: whole number where a string is needed");
  refuse_json("\"texts\":[null]", M2SE_RULE_FORMAT, "texts: null");
  refuse_json("\"texts\":[\"a\",[\"b\"]]", M2SE_RULE_FORMAT, "texts: array where a string is needed");
  refuse_json("\"images\":{\"data\":\"AAAA\"}", M2SE_RULE_FORMAT, "images: object where an array is needed");
  refuse_json("\"images\":[\"AAAA\"]", M2SE_RULE_FORMAT, "images: string where an object is needed");
  refuse_json("\"images\":[null]", M2SE_RULE_FORMAT, "images: null");
  refuse_json("\"images\":[{\"data\":[1,2]}]", M2SE_RULE_FORMAT, "data: array where a string is needed");
  refuse_json("\"images\":[{\"path\":7}]", M2SE_RULE_FORMAT, "path: whole number");
  refuse_json("\"text_rows\":[[1,2]]", M2SE_RULE_FORMAT, "text_rows: array where an object is needed");
  refuse_json("\"text_rows\":{\"dim\":\"x\",\"data\":\"AAAA\"}", M2SE_RULE_FORMAT, "dim: \"x\"");
  refuse_json("\"text_rows\":{\"dim\":-1,\"data\":\"AAAA\"}", M2SE_RULE_FORMAT, "dim: -1 is negative");
  refuse_json("\"text_rows\":{\"data\":\"AAAAAA==\"}", M2SE_RULE_DIM,
              "text_rows.dim: 0, allowed are 1..4096");
  refuse_json("\"text_rows\":{\"dim\":4294967297,\"data\":\"AAAA\"}", M2SE_RULE_DIM,
              "text_rows.dim: 4294967295");
  refuse_json("\"text_rows\":{},\"textRows\":{}", M2SE_RULE_FORMAT, "both text_rows and textRows");
  refuse_json("\"image_rows\":{\"dim\":1,\"data\":[0.5]}", M2SE_RULE_FORMAT, "data: array");
  refuse_json("\"title\":7", M2SE_RULE_FORMAT, "title: whole number");
}

/* ---- the rules ---- */

static void test_rows(void **state) {
  (void)state;
  static const float many[(M2SE_ITEM_ROWS_MAX + 1) * 2];
  struct m2se_item item = {.item_id = bytes_of("i"), .text_rows = {3, 2, six}};
  size_t size = encode(&item);
  refuse(value, size, 4, M2SE_RULE_DIM, "text_rows.dim: 3 instead of 4");
  item.image_rows = (struct m2se_feature_rows){2, 3, six};
  size = encode(&item);
  refuse(value, size, 3, M2SE_RULE_DIM, "image_rows.dim: 2 instead of 3");
  refuse(value, size, 0, M2SE_RULE_DIM, "image_rows.dim: 2 instead of 3"); // both alike
  item.text_rows = (struct m2se_feature_rows){0};
  accept(value, encode(&item), 0);
  check_rows(&decoded.image_rows, 2, 3, six);

  item.image_rows = (struct m2se_feature_rows){2, M2SE_ITEM_ROWS_MAX, many};
  accept(value, encode(&item), 2);
  check_rows(&decoded.image_rows, 2, M2SE_ITEM_ROWS_MAX, many);
  item.image_rows.count++;
  refuse(value, encode(&item), 2, M2SE_RULE_COUNT, "image_rows: 1025 rows, at most 1024");
  item.image_rows =
      (struct m2se_feature_rows){M2SE_ITEM_DIM_MAX + 1, 1, (const float[M2SE_ITEM_DIM_MAX + 1]){0}};
  refuse(value, encode(&item), 0, M2SE_RULE_DIM, "image_rows.dim: 4097, allowed are 1..4096");
  item.image_rows = (struct m2se_feature_rows){M2SE_ITEM_DIM_MAX, 1, (const float[M2SE_ITEM_DIM_MAX]){0}};
  accept(value, encode(&item), 0);

  // id "i"; text_rows {dim: 2, data: 12 bytes}, then {dim: 2, data: 7 bytes}
  refuse("\x0A\1i\x22\x10\x08\2\x12\x0C"
         "abcdefghijkl",
         21, 0, M2SE_RULE_LENGTH, "text_rows.data: 12 bytes are not a multiple of 8");
  refuse("\x0A\1i\x22\x0B\x08\2\x12\x07"
         "abcdefg",
         16, 0, M2SE_RULE_LENGTH, "text_rows.data: 7 bytes are not a multiple of 8");
  accept("\x0A\1i\x22\2\x08\2", 7, 0); // a width without rows
  assert_int_equal(decoded.text_rows.dim + decoded.text_rows.count, 0);
}

static void test_not_finite(void **state) {
  (void)state;
  static const uint32_t bad[] = {0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00001, 0x7F800001, 0xFFFFFFFF};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    float data[] = {0, 1, 2, 3, 4, 5};
    memcpy(&data[5], &bad[i], sizeof data[5]);
    struct m2se_item item = {.item_id = bytes_of("i"), .text_rows = {3, 2, six}, .image_rows = {3, 2, data}};
    refuse(value, encode(&item), 3, M2SE_RULE_FINITE, "image_rows: row 1, column 2 is not finite");
  }
  const char *text = "{\"item_id\":\"i\",\"text_rows\":{\"dim\":1,\"data\":\"AACAfw==\"}}";
  refuse(text, strlen(text), 1, M2SE_RULE_FINITE, "text_rows: row 0, column 0");
}

static void test_images(void **state) {
  (void)state;
  struct m2se_image_source image = {.path = bytes_of("a")};
  struct m2se_item item = {.item_id = bytes_of("i"), .image_count = 1, .images = &image};
  static const char *const good[] = {"a", "a/b.png", "..a", "a..", "a/...", "./a", "\xC3\xA9.jpg"};
  for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
    image.path = bytes_of(good[i]);
    accept(value, encode(&item), 0);
    check_bytes(decoded.images[0].path, good[i]);
  }
  static const char *const bad[] = {"/a", "..", "../a", "a/..", "a/../b", "/", "a//../b"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    image.path = bytes_of(bad[i]);
    refuse(value, encode(&item), 0, M2SE_RULE_IMAGE, "images[0].path: absolute or with '..'");
  }
  char path[M2SE_IMAGE_PATH_BYTES_MAX + 2];
  memset(path, 'x', sizeof path);
  path[M2SE_IMAGE_PATH_BYTES_MAX] = 0;
  image.path = bytes_of(path);
  accept(value, encode(&item), 0);
  path[M2SE_IMAGE_PATH_BYTES_MAX] = 'x';
  path[M2SE_IMAGE_PATH_BYTES_MAX + 1] = 0;
  image.path = bytes_of(path);
  refuse(value, encode(&item), 0, M2SE_RULE_IMAGE, "images[0].path: 1025 bytes, at most 1024");
  image = (struct m2se_image_source){bytes_of("JFIF"), bytes_of("a")};
  refuse(value, encode(&item), 0, M2SE_RULE_IMAGE, "images[0]: both data and path");
  image = (struct m2se_image_source){{"", 0}, {"", 0}};
  refuse(value, encode(&item), 0, M2SE_RULE_IMAGE, "images[0]: neither data nor path");
}

static void test_counts(void **state) {
  (void)state;
  struct m2se_bytes texts[M2SE_ITEM_TEXTS_MAX + 1];
  struct m2se_image_source images[M2SE_ITEM_IMAGES_MAX + 1];
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
    texts[i] = bytes_of("t");
  for (size_t i = 0; i < sizeof images / sizeof images[0]; i++)
    images[i] = (struct m2se_image_source){{"", 0}, bytes_of("p")};
  struct m2se_item item = {.item_id = bytes_of("i"), .texts = texts, .images = images};
  item.text_count = M2SE_ITEM_TEXTS_MAX;
  item.image_count = M2SE_ITEM_IMAGES_MAX;
  accept(value, encode(&item), 0);
  assert_int_equal(decoded.text_count, M2SE_ITEM_TEXTS_MAX);
  check_bytes(decoded.texts[M2SE_ITEM_TEXTS_MAX - 1], "t");
  check_bytes(decoded.images[M2SE_ITEM_IMAGES_MAX - 1].path, "p");
  item.text_count++;
  refuse(value, encode(&item), 0, M2SE_RULE_COUNT, "texts: 257, at most 256");
  item.text_count--;
  item.image_count++;
  refuse(value, encode(&item), 0, M2SE_RULE_COUNT, "images: 257, at most 256");
}

/* An item as large as may be, in both forms; one byte more; and one that would take too much memory. */
static void test_size(void **state) {
  (void)state;
  static char picture[M2SE_ITEM_BYTES_MAX];
  memset(picture, 'A', sizeof picture);
  struct m2se_image_source image = {.data = {picture, sizeof picture - 32}};
  struct m2se_item item = {.item_id = bytes_of("i"), .image_count = 1, .images = &image};
  image.data.size += M2SE_ITEM_BYTES_MAX - m2se_item_encode(&item, NULL, 0);
  assert_int_equal(encode(&item), M2SE_ITEM_BYTES_MAX);
  accept(value, M2SE_ITEM_BYTES_MAX, 0);
  assert_int_equal(decoded.images[0].data.size, image.data.size);
  image.data.size++;
  refuse(value, encode(&item), 0, M2SE_RULE_SIZE, "8388609 bytes, at most 8388608");

  int begin = snprintf((char *)value, sizeof value, "{\"item_id\":\"i\",\"images\":[{\"data\":\"");
  size_t digits = (M2SE_ITEM_BYTES_MAX - (size_t)begin - 4) & ~(size_t)3;
  memset(value + begin, 'A', digits);
  memcpy(value + begin + digits, "\"}]}", 4);
  accept(value, (size_t)begin + digits + 4, 0);
  assert_int_equal(decoded.images[0].data.size, digits / 4 * 3);

  memcpy(value, "\x0A\1i", 3);
  for (size_t i = 3; i + 2 <= M2SE_ITEM_BYTES_MAX; i += 2) // four million texts of nothing
    memcpy(value + i, "\x12", 2);
  refuse(value, M2SE_ITEM_BYTES_MAX - 1, 0, M2SE_RULE_MEMORY, "decoding takes more than 33554432 bytes");
  begin = snprintf((char *)value, sizeof value, "{\"item_id\":\"i\",\"texts\":[\"\"");
  for (int i = 0; i < 70000; i++, begin += 3)
    memcpy(value + begin, ",\"\"", 3);
  memcpy(value + begin, "]}", 2);
  refuse(value, (size_t)begin + 2, 0, M2SE_RULE_MEMORY, "JSON values, more than 65536");
}

/* Items of every number of texts are taken by an arena that is too small, or refused cleanly. */
static void test_small_arena(void **state) {
  (void)state;
  const char *json =
      "{\"item_id\":\"i\",\"texts\":[\"one\",\"two\"],\"images\":[{\"data\":\"AAAA\"},{\"path\":\"p\"}],"
      "\"text_rows\":{\"dim\":1,\"data\":\"AAAAAA==\"},\"title\":\"t\",\"picture\":\"p\"}";
  accept(json, strlen(json), 0);
  size_t size = m2se_item_encode(&decoded, value, sizeof value);
  for (int form = 0; form < 2; form++) {
    int refused = 0, code = M2SE_EFORMAT;
    for (size_t room = 0; code && room < 4096; room += 16) {
      struct m2se_arena small;
      struct m2se_refusal refusal;
      assert_int_equal(m2se_arena_new(&small, room + 1), 0);
      code = m2se_item_decode(&decoded, &small, form ? (const void *)json : value, form ? strlen(json) : size,
                              0, &refusal);
      if (code) {
        refused++;
        check_refusal(code, &refusal, M2SE_RULE_MEMORY, "decoding takes more than");
      } else {
        check_bytes(decoded.texts[1], "two");
        check_bytes(decoded.picture, "p");
      }
      m2se_arena_free(&small);
    }
    assert_int_equal(code, 0);
    assert_in_range(refused, 10, 200);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_protobuf), cmocka_unit_test(test_bare_item),  cmocka_unit_test(test_line_feed),
      cmocka_unit_test(test_json),     cmocka_unit_test(test_base64),     cmocka_unit_test(test_refused_json),
      cmocka_unit_test(test_rows),     cmocka_unit_test(test_not_finite), cmocka_unit_test(test_images),
      cmocka_unit_test(test_counts),   cmocka_unit_test(test_size),       cmocka_unit_test(test_small_arena),
  };
  return cmocka_run_group_tests(tests, make_arena, free_arena);
}
