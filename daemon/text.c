#include "daemon/text.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "model/files/utf8.h"

/* Room for size bytes more and a NUL. */
static bool reserve(struct m2sed_text *text, size_t size) {
  if (text->failed)
    return false;
  size_t needed = text->size + size + 1;
  if (needed <= text->capacity)
    return true;
  size_t capacity = needed < 1024 ? 1024 : needed * 2;
  char *larger = realloc(text->data, capacity);
  if (!larger) {
    text->failed = true;
    return false;
  }
  text->data = larger;
  text->capacity = capacity;
  return true;
}

void m2sed_text_add_bytes(struct m2sed_text *text, const char *bytes, size_t size) {
  if (!reserve(text, size))
    return;
  memcpy(text->data + text->size, bytes, size);
  text->size += size;
  text->data[text->size] = '\0';
}

void m2sed_text_add(struct m2sed_text *text, const char *format, ...) {
  va_list arguments;
  char *line = NULL;
  va_start(arguments, format);
  int size = vasprintf(&line, format, arguments);
  va_end(arguments);
  if (size < 0) {
    text->failed = true;
    return;
  }
  m2sed_text_add_bytes(text, line, (size_t)size);
  free(line);
}

void m2sed_text_add_foreign(struct m2sed_text *text, const char *bytes, size_t size) {
  for (size_t i = 0; i < size;) {
    size_t length = m2se_utf8_next(bytes + i, size - i); /* 0: no text */
    unsigned char byte = (unsigned char)bytes[i];
    bool second = byte == 0xc2 && length == 2 && (unsigned char)bytes[i + 1] < 0xa0; /* U+0080..009F */
    if (!length || byte < 0x20 || byte == 0x7f || second)
      m2sed_text_add_bytes(text, "?", 1);
    else
      m2sed_text_add_bytes(text, &bytes[i], length);
    i += length ? length : 1;
  }
}

void m2sed_text_clear(struct m2sed_text *text) {
  text->size = 0;
  if (text->data)
    text->data[0] = '\0';
}

void m2sed_text_free(struct m2sed_text *text) {
  free(text->data);
  *text = (struct m2sed_text){0};
}

/* ---- forms for people ---- */

void m2sed_text_add_count(struct m2sed_text *text, uint64_t count) {
  char digits[24], grouped[32];
  int length = snprintf(digits, sizeof digits, "%" PRIu64, count), out = 0;
  for (int i = 0; i < length; i++) {
    if (i && (length - i) % 3 == 0)
      grouped[out++] = ',';
    grouped[out++] = digits[i];
  }
  m2sed_text_add_bytes(text, grouped, (size_t)out);
}

void m2sed_text_add_bytes_size(struct m2sed_text *text, uint64_t bytes) {
  static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = (double)bytes;
  uint32_t unit = 0;
  while (value >= 1024 && unit < 4) {
    value /= 1024;
    unit++;
  }
  m2sed_text_add(text, "%.*f %s", unit && value < 100 ? 1 : 0, value, units[unit]);
}

void m2sed_text_add_seconds(struct m2sed_text *text, double seconds) {
  if (!(seconds < 1e15)) {
    m2sed_text_add(text, "?");
    return;
  }
  uint64_t whole = seconds > 0 ? (uint64_t)seconds : 0;
  if (whole >= 86400)
    m2sed_text_add(text, "%" PRIu64 "d %02" PRIu64 "h", whole / 86400, whole / 3600 % 24);
  else if (whole >= 3600)
    m2sed_text_add(text, "%" PRIu64 "h %02" PRIu64 "m", whole / 3600, whole / 60 % 60);
  else if (whole >= 60)
    m2sed_text_add(text, "%" PRIu64 "m %02" PRIu64 "s", whole / 60, whole % 60);
  else
    m2sed_text_add(text, "%.1fs", seconds > 0 ? seconds : 0);
}

void m2sed_text_add_time(struct m2sed_text *text, int64_t time_ms) {
  time_t seconds = (time_t)(time_ms / 1000);
  struct tm utc;
  char line[64];
  if (gmtime_r(&seconds, &utc) && strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%SZ", &utc) > 0)
    m2sed_text_add(text, "%s", line);
  else
    m2sed_text_add(text, "%" PRId64 " ms", time_ms);
}

void m2sed_text_add_bars(struct m2sed_text *text, const double *values, uint32_t count) {
  static const char *const bars[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  double most = 0;
  for (uint32_t i = 0; i < count; i++)
    most = values[i] > most ? values[i] : most;
  for (uint32_t i = 0; i < count; i++) {
    double height = most > 0 && values[i] > 0 ? ceil(values[i] / most * 7) : 0;
    m2sed_text_add(text, "%s", bars[(uint32_t)height]);
  }
}
