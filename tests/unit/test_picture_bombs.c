// Pictures made to cost much: each is refused with its reason, in time, in the helper's memory, and the next
// picture is read.
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>
#include <zlib.h>

#include "tests/unit/pictures_rig.h"

#ifdef M2SED_SANITIZED
enum { IS_SANITIZED = 1, MS_MAX = 20000 };
#else
enum { IS_SANITIZED = 0, MS_MAX = 2000 };
#endif

struct bytes {
  uint8_t *at;
  size_t size, room;
};

static void add(struct bytes *bytes, const void *more, size_t size) {
  if (size == 0) {
    return;
  }
  if (bytes->size + size > bytes->room) {
    bytes->room = 2 * (bytes->size + size);
    bytes->at = realloc(bytes->at, bytes->room);
    assert_non_null(bytes->at);
  }
  memcpy(bytes->at + bytes->size, more, size);
  bytes->size += size;
}

static void add_32(struct bytes *bytes, uint32_t value) {
  uint8_t big[4] = {(uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8), (uint8_t)value};
  add(bytes, big, 4);
}

static void add_chunk(struct bytes *png, const char *name, const void *content, size_t size) {
  add_32(png, (uint32_t)size);
  size_t from = png->size;
  add(png, name, 4);
  add(png, content, size);
  add_32(png, (uint32_t)crc32(0, png->at + from, (unsigned)(4 + size)));
}

/* kind: colour type, depth, interlaced, as in IHDR. */
static struct bytes begin_png(uint32_t width, uint32_t height, unsigned colour, unsigned depth,
                              unsigned interlaced) {
  struct bytes png = {0}, header = {0};
  uint8_t kind[5] = {(uint8_t)depth, (uint8_t)colour, 0, 0, (uint8_t)interlaced};
  add(&png, "\x89PNG\r\n\x1a\n", 8);
  add_32(&header, width);
  add_32(&header, height);
  add(&header, kind, 5);
  add_chunk(&png, "IHDR", header.at, header.size);
  free(header.at);
  return png;
}

/* `before`, then so many zeros packed. */
static struct bytes pack_zeros(const char *before, size_t before_size, uint64_t size) {
  static const uint8_t zeros[1 << 16];
  uint8_t packed[1 << 12];
  struct bytes out = {0};
  add(&out, before, before_size);
  z_stream stream = {0};
  assert_int_equal(deflateInit(&stream, 9), Z_OK);
  int status = Z_OK;
  while (status != Z_STREAM_END) {
    if (stream.avail_in == 0 && size > 0) {
      stream.next_in = (uint8_t *)zeros;
      stream.avail_in = size < sizeof zeros ? (unsigned)size : sizeof zeros;
      size -= stream.avail_in;
    }
    stream.next_out = packed;
    stream.avail_out = sizeof packed;
    status = deflate(&stream, size > 0 ? Z_NO_FLUSH : Z_FINISH);
    add(&out, packed, sizeof packed - stream.avail_out);
  }
  deflateEnd(&stream);
  return out;
}

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Peak address space of the helper, in bytes. */
static uint64_t helper_peak(void) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/status", (int)pictures_rig_child());
  size_t size;
  char *status = (char *)pictures_rig_read(path, &size);
  const char *line = strstr(status, "VmPeak:");
  assert_non_null(line);
  uint64_t peak = strtoull(line + strlen("VmPeak:"), NULL, 10) * 1024;
  free(status);
  return peak;
}

/* Frees the bytes. */
static void expect(struct m2sed_pictures *pictures, const char *what, struct bytes bytes,
                   enum m2sed_picture_reason reason) {
  struct m2sed_picture picture;
  struct m2se_error error = {0};
  uint64_t before = m2sed_pictures_count(pictures).by_reason[reason];
  int64_t begin = now_ms();
  int came = m2sed_pictures_decode(pictures, bytes.at, bytes.size, &picture, &error);
  int64_t took = now_ms() - begin;
  printf("%-28s %8zu bytes %5d ms  %s\n", what, bytes.size, (int)took,
         came ? error.text : m2sed_picture_reason_name(0));
  assert_int_equal(came, reason);
  assert_int_equal(m2sed_pictures_count(pictures).by_reason[reason], before + 1);
  assert_in_range(took, 0, MS_MAX);
  assert_int_equal(m2sed_pictures_decode_file(pictures, M2SE_PICTURES, "420.jpg", &picture, &error), 0);
  assert_true(IS_SANITIZED || helper_peak() <= 512 << 20);
  free(bytes.at);
}

static struct bytes text(const char *content) {
  struct bytes bytes = {0};
  add(&bytes, content, strlen(content));
  return bytes;
}

static void test_png(void **state) {
  (void)state;
  struct m2sed_pictures *pictures = pictures_rig_open(NULL);
  struct bytes png = begin_png(50000, 50000, 0, 1, 0), packed = pack_zeros("", 0, 50000 * 6251);
  add_chunk(&png, "IDAT", packed.at, packed.size);
  add_chunk(&png, "IEND", "", 0);
  free(packed.at);
  expect(pictures, "50,000 x 50,000", png, M2SED_PICTURE_TOO_MANY_PIXELS);

  png = begin_png(0x7fffffff, 0x7fffffff, 6, 16, 0);
  expect(pictures, "2^31 x 2^31", png, M2SED_PICTURE_TOO_MANY_PIXELS);
  expect(pictures, "0 x 1", begin_png(0, 1, 2, 8, 0), M2SED_PICTURE_DAMAGED);

  png = begin_png(1, 1, 0, 8, 0);
  packed = pack_zeros("huge\0", 6, 200 << 20);
  add_chunk(&png, "iCCP", packed.at, packed.size);
  free(packed.at);
  expect(pictures, "packed iCCP of 200 MiB", png, M2SED_PICTURE_TOO_COMPLEX);

  png = begin_png(1, 1, 0, 8, 0);
  uint8_t *metadata = calloc(5 << 20, 1);
  assert_non_null(metadata);
  add_chunk(&png, "iCCP", metadata, 5 << 20);
  free(metadata);
  expect(pictures, "iCCP of 5 MiB", png, M2SED_PICTURE_TOO_COMPLEX);

  png = begin_png(1, 1, 0, 8, 0);
  for (int i = 0; i < 1000000; i++) {
    add_chunk(&png, "IDAT", "", 0);
  }
  expect(pictures, "1,000,000 empty chunks", png, M2SED_PICTURE_TOO_COMPLEX);

  png = begin_png(1, 1, 0, 8, 0);
  add_32(&png, 0x7fffffff);
  add(&png, "IDATand nothing more", 20);
  expect(pictures, "endless chunk", png, M2SED_PICTURE_DAMAGED);
  png = begin_png(1, 1, 0, 8, 0);
  add_chunk(&png, "IEND", "", 0);
  expect(pictures, "no pixels", png, M2SED_PICTURE_DAMAGED);
  m2sed_pictures_close(pictures);
}

/* The most that is allowed: pixels or the end of its time, never more memory. */
static void test_png_of_the_largest_size(void **state) {
  (void)state;
  struct m2sed_pictures *pictures = pictures_rig_open(NULL);
  struct bytes png = begin_png(8000, 5000, 6, 16, 1);
  uint8_t turned[] = "MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
  struct bytes packed = pack_zeros("", 0, UINT64_C(8000) * 5000 * 8 + 20000);
  add_chunk(&png, "eXIf", turned, sizeof turned - 1);
  add_chunk(&png, "IDAT", packed.at, packed.size);
  add_chunk(&png, "IEND", "", 0);
  struct m2sed_picture picture;
  struct m2se_error error = {0};
  int64_t begin = now_ms();
  int reason = m2sed_pictures_decode(pictures, png.at, png.size, &picture, &error);
  printf("40 million interlaced pixels: %d ms %s\n", (int)(now_ms() - begin), reason ? error.text : "ok");
  if (reason != M2SED_PICTURE_TIMEOUT) {
    assert_int_equal(reason, 0);
    assert_int_equal(picture.width, 5000);
    assert_int_equal(picture.height, 8000);
  }
  free(png.at);
  free(packed.at);
  m2sed_pictures_close(pictures);
}

/* A progressive gray JPEG of so many pixels a side and so many scans without a bit in them. */
static struct bytes scans(unsigned side, unsigned count) {
  struct bytes jpeg = {0};
  uint8_t high = (uint8_t)(side >> 8), low = (uint8_t)side;
  uint8_t frame[] = {0xff, 0xc2, 0, 11, 8, high, low, high, low, 1, 1, 0x11, 0};
  uint8_t ones[64];
  memset(ones, 1, sizeof ones);
  add(&jpeg, "\xff\xd8\xff\xdb\0\x43\0", 7);
  add(&jpeg, ones, sizeof ones);
  add(&jpeg, frame, sizeof frame);
  uint8_t codes[] = {0xff, 0xc4, 0, 20, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  add(&jpeg, codes, sizeof codes);
  for (unsigned i = 0; i < count; i++) {
    add(&jpeg, "\xff\xda\0\x08\x01\x01\0\0\0\0", 10);
  }
  add(&jpeg, "\xff\xd9", 2);
  return jpeg;
}

static struct bytes part_of(const char *name, size_t part, size_t of) {
  char path[1024];
  snprintf(path, sizeof path, M2SE_PICTURES "/%s", name);
  struct bytes bytes = {0};
  bytes.at = pictures_rig_read(path, &bytes.size);
  bytes.size = bytes.size * part / of;
  return bytes;
}

static void test_jpeg(void **state) {
  (void)state;
  struct m2sed_pictures *pictures = pictures_rig_open(NULL);
  expect(pictures, "80,000 scans, small", scans(64, 80000), M2SED_PICTURE_TOO_COMPLEX);
  expect(pictures, "80,000 scans, large", scans(4000, 80000), M2SED_PICTURE_TOO_COMPLEX);
  expect(pictures, "65,500 pixels a side", scans(65500, 1), M2SED_PICTURE_TOO_MANY_PIXELS);
  expect(pictures, "65,535 pixels a side", scans(65535, 1), M2SED_PICTURE_TOO_MANY_PIXELS);
  struct bytes jpeg = {0};
  add(&jpeg, "\xff\xd8", 2);
  while (jpeg.size + 4 <= M2SED_PICTURES_BYTES_MAX) {
    add(&jpeg, "\xff\xe1\0\x02", 4);
  }
  expect(pictures, "4,000,000 markers", jpeg, M2SED_PICTURE_TOO_COMPLEX);
  jpeg = part_of("420.jpg", 1, 1);
  uint8_t *frame = memmem(jpeg.at, jpeg.size, "\xff\xc0\0\x11\x08", 5);
  assert_non_null(frame);
  frame[4] = 12;
  expect(pictures, "12 bits", jpeg, M2SED_PICTURE_UNSUPPORTED);
  m2sed_pictures_close(pictures);
}

static void test_cut_and_false(void **state) {
  (void)state;
  struct m2sed_pictures *pictures = pictures_rig_open(NULL);
  static const char *const names[] = {"420.jpg",  "progressive.jpg", "cmyk.jpg",      "rgb.png",
                                      "rgba.png", "lossy.webp",      "lossless.webp", "alpha.webp"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    expect(pictures, names[i], part_of(names[i], 3, 4), M2SED_PICTURE_DAMAGED);
  }
  expect(pictures, "GIF", text("GIF89a\x01"), M2SED_PICTURE_NOT_A_PICTURE);
  expect(pictures, "SVG", text("<svg xmlns='http://www.w3.org/2000/svg'/>"), M2SED_PICTURE_NOT_A_PICTURE);
  expect(pictures, "HTML", text("<!doctype html><script>1</script>"), M2SED_PICTURE_NOT_A_PICTURE);
  expect(pictures, "JPEG, begun", text("\xff\xd8\xff"), M2SED_PICTURE_DAMAGED);
  expect(pictures, "PNG, begun", text("\x89PNG\r\n\x1a\n"), M2SED_PICTURE_DAMAGED);
  struct bytes webp = {0};
  add(&webp, "RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0\x01\0\0\x01\0\0ANIM\0\0\0\0", 38);
  expect(pictures, "WebP, animated", webp, M2SED_PICTURE_UNSUPPORTED);
  webp = (struct bytes){0};
  add(&webp, "RIFF\x12\0\0\0WEBPVP8L\x06\0\0\0\x2f\xff\xff\xff\x0f\0", 26);
  expect(pictures, "WebP, 16,384 pixels a side", webp, M2SED_PICTURE_TOO_MANY_PIXELS);
  m2sed_pictures_close(pictures);
}

static void test_time(void **state) {
  (void)state;
  struct m2sed_pictures_options options = {.cpu_ms_max = 20};
  struct m2sed_pictures *pictures = pictures_rig_open(&options);
  expect(pictures, "20 ms for 100 passes", scans(4000, 100), M2SED_PICTURE_TIMEOUT);
  assert_int_equal(m2sed_pictures_count(pictures).helpers_started, 2);
  m2sed_pictures_close(pictures);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_png),  cmocka_unit_test(test_png_of_the_largest_size),
      cmocka_unit_test(test_jpeg), cmocka_unit_test(test_cut_and_false),
      cmocka_unit_test(test_time),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
