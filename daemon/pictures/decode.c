#include "daemon/pictures/decode.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void m2sed_decode_refuse(struct m2sed_decode *decode, enum m2sed_picture_reason reason, const char *format,
                         ...) {
  assert(reason != M2SED_PICTURE_OK);
  if (decode->reason != M2SED_PICTURE_OK) {
    return;
  }
  decode->reason = reason;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(decode->detail, sizeof decode->detail, format, arguments);
  va_end(arguments);
}

bool m2sed_decode_size(struct m2sed_decode *decode, uint64_t width, uint64_t height, uint32_t channels) {
  assert(channels == 3 || channels == 4);
  if (width == 0 || height == 0) {
    m2sed_decode_refuse(decode, M2SED_PICTURE_DAMAGED, "no pixels");
    return false;
  }
  if (width > M2SED_DECODE_SIDE_MAX || height > M2SED_DECODE_SIDE_MAX ||
      width * height > decode->pixels_max) {
    m2sed_decode_refuse(decode, M2SED_PICTURE_TOO_MANY_PIXELS, "%llu x %llu pixels, at most %u are allowed",
                        (unsigned long long)width, (unsigned long long)height, decode->pixels_max);
    return false;
  }
  decode->width = (uint32_t)width;
  decode->height = (uint32_t)height;
  decode->channels = channels;
  return true;
}

static uint32_t read_16(const uint8_t *at, bool little) {
  return little ? at[0] | (uint32_t)at[1] << 8 : at[1] | (uint32_t)at[0] << 8;
}

static uint32_t read_32(const uint8_t *at, bool little) {
  return little ? read_16(at, true) | read_16(at + 2, true) << 16
                : read_16(at + 2, false) | read_16(at, false) << 16;
}

uint32_t m2sed_decode_orientation(const uint8_t *exif, size_t size) {
  enum { ORIENTATION = 0x0112, SHORT = 3 };
  if (size >= 6 && memcmp(exif, "Exif\0\0", 6) == 0) {
    exif += 6;
    size -= 6;
  }
  if (size < 8) {
    return 1;
  }
  bool little = memcmp(exif, "II*\0", 4) == 0;
  if (!little && memcmp(exif, "MM\0*", 4) != 0) {
    return 1;
  }
  size_t at = read_32(exif + 4, little);
  if (at > size - 2) {
    return 1;
  }
  uint32_t count = read_16(exif + at, little);
  at += 2;
  for (uint32_t i = 0; i < count && size - at >= 12; i++, at += 12) {
    if (read_16(exif + at, little) == ORIENTATION && read_16(exif + at + 2, little) == SHORT) {
      uint32_t value = read_16(exif + at + 8, little);
      return value >= 1 && value <= 8 ? value : 1;
    }
  }
  return 1;
}

/* The eight orientations are: columns backwards or not, rows backwards or not, the two exchanged or not. */
void m2sed_decode_row(struct m2sed_decode *decode, uint32_t y, const uint8_t *row) {
  assert(decode->orientation >= 1 && decode->orientation <= 8 && y < decode->height);
  static const uint8_t columns_backwards[] = {0, 0, 1, 1, 0, 0, 0, 1, 1};
  static const uint8_t rows_backwards[] = {0, 0, 0, 1, 1, 0, 1, 1, 0};
  size_t width = decode->width, height = decode->height, channels = decode->channels;
  bool exchanged = decode->orientation >= 5;
  size_t line = channels * (exchanged ? height : width); /* of the picture as people see it */
  size_t first = columns_backwards[decode->orientation] ? width - 1 : 0;
  size_t across = rows_backwards[decode->orientation] ? height - 1 - y : y;
  size_t at = exchanged ? first * line + across * channels : across * line + first * channels;
  size_t step = exchanged ? line : channels;
  if (first > 0) {
    step = (size_t)0 - step; /* unsigned, so that adding it goes back */
  }
  for (size_t x = 0; x < width; x++, at += step) {
    memcpy(decode->pixels + at, row + x * channels, channels);
  }
}

uint8_t *m2sed_decode_whole(struct m2sed_decode *decode) {
  if (decode->orientation == 1) {
    return decode->pixels;
  }
  uint8_t *whole = malloc((size_t)decode->width * decode->height * decode->channels);
  if (!whole) {
    m2sed_decode_refuse(decode, M2SED_PICTURE_TOO_MUCH_MEMORY, "no memory to turn it");
  }
  return whole;
}

void m2sed_decode_whole_place(struct m2sed_decode *decode, uint8_t *whole) {
  if (whole != decode->pixels) {
    for (uint32_t y = 0; y < decode->height; y++) {
      m2sed_decode_row(decode, y, whole + (size_t)y * decode->width * decode->channels);
    }
  }
  m2sed_decode_whole_free(decode, whole);
}

void m2sed_decode_whole_free(struct m2sed_decode *decode, uint8_t *whole) {
  if (whole != decode->pixels) {
    free(whole);
  }
}

void m2sed_decode(const uint8_t *bytes, size_t size, uint32_t pixels_max, uint8_t *pixels,
                  struct m2sed_pictures_reply *reply) {
  struct m2sed_decode decode = {
      .bytes = bytes, .size = size, .pixels_max = pixels_max, .pixels = pixels, .orientation = 1};
  if (size >= 3 && memcmp(bytes, "\xff\xd8\xff", 3) == 0) {
    m2sed_decode_jpeg(&decode);
  } else if (size >= 8 && memcmp(bytes, "\x89PNG\r\n\x1a\n", 8) == 0) {
    m2sed_decode_png(&decode);
  } else if (size >= 12 && memcmp(bytes, "RIFF", 4) == 0 && memcmp(bytes + 8, "WEBP", 4) == 0) {
    m2sed_decode_webp(&decode);
  } else {
    m2sed_decode_refuse(&decode, M2SED_PICTURE_NOT_A_PICTURE, "by its first bytes");
  }
  *reply = (struct m2sed_pictures_reply){.reason = decode.reason};
  if (decode.reason == M2SED_PICTURE_OK) {
    bool exchanged = decode.orientation >= 5;
    reply->width = exchanged ? decode.height : decode.width;
    reply->height = exchanged ? decode.width : decode.height;
    reply->channels = decode.channels;
  } else {
    memcpy(reply->detail, decode.detail, sizeof reply->detail);
  }
}
