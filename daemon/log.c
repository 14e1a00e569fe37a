#include "daemon/log.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "model/files/utf8.h"

static const char *const level_names[] = {"debug", "info", "warn", "error"};

struct line {
  char text[M2SED_LOG_LINE_MAX + 1]; /* and the end of the line */
  size_t size;
  size_t size_max; /* leaves room for what closes the line */
  bool json;
};

static void put(struct line *line, const char *text, size_t size) {
  if (size > line->size_max - line->size)
    size = line->size_max - line->size;
  memcpy(line->text + line->size, text, size);
  line->size += size;
}

/* All or nothing, so that no escape is cut in two. */
static bool put_whole(struct line *line, const char *text, size_t size) {
  if (size > line->size_max - line->size)
    return false;
  put(line, text, size);
  return true;
}

/* Between quotes, as JSON has it; logfmt readers take the same escapes. A byte that is no UTF-8 is shown as
 * \u00XX in both: the line stays readable and valid, and says which byte it was. */
static void put_quoted(struct line *line, const char *text, size_t size) {
  put(line, "\"", 1);
  line->size_max--; /* the closing quote always fits */
  while (size) {
    unsigned char c = (unsigned char)*text;
    size_t length = m2se_utf8_next(text, size);
    char escape[8];
    bool fits;
    /* U+0080..009F are control characters too, and a terminal may obey them. */
    bool control = c < 0x20 || c == 0x7f || !length || (c == 0xc2 && (unsigned char)text[1] < 0xa0);
    if (c == '"' || c == '\\') {
      escape[0] = '\\';
      escape[1] = (char)c;
      fits = put_whole(line, escape, 2);
    } else if (control) {
      unsigned value = c == 0xc2 && length == 2 ? (unsigned char)text[1] : c;
      snprintf(escape, sizeof escape, "\\u%04x", value);
      fits = put_whole(line, escape, 6);
    } else {
      fits = put_whole(line, text, length);
    }
    if (!fits)
      break;
    length = length ? length : 1;
    text += length;
    size -= length;
  }
  line->size_max++;
  put(line, "\"", 1);
}

/* Words that need no quotes in logfmt. */
static bool is_plain(const char *text, size_t size) {
  for (size_t i = 0; i < size; i++)
    if ((unsigned char)text[i] <= ' ' || (unsigned char)text[i] > '~' || strchr("\"\\=", text[i]))
      return false;
  return size > 0;
}

static void put_name(struct line *line, const char *name) {
  if (line->json) {
    put(line, line->size > 1 ? ",\"" : "\"", line->size > 1 ? 2 : 1);
    put(line, name, strlen(name));
    put(line, "\":", 2);
  } else {
    put(line, " ", line->size > 0);
    put(line, name, strlen(name));
    put(line, "=", 1);
  }
}

static void put_string(struct line *line, const char *name, const char *text, size_t size) {
  /* A field of which not even the name and an empty value fit is left out: half a name would break the line.
   */
  if (line->size_max - line->size < strlen(name) + 8)
    return;
  put_name(line, name);
  if (line->json || !is_plain(text, size) || size > line->size_max - line->size)
    put_quoted(line, text, size);
  else
    put(line, text, size);
}

static void put_field(struct line *line, const struct m2sed_log_field *field) {
  char number[32] = "null";
  switch (field->kind) {
  case M2SED_FIELD_IS_STRING:
    put_string(line, field->name, field->string ? field->string : "", field->string ? field->size : 0);
    return;
  case M2SED_FIELD_IS_SIGNED:
    snprintf(number, sizeof number, "%lld", (long long)field->integer);
    break;
  case M2SED_FIELD_IS_UNSIGNED:
    snprintf(number, sizeof number, "%llu", (unsigned long long)field->whole);
    break;
  case M2SED_FIELD_IS_REAL:
    if (isfinite(field->real))
      snprintf(number, sizeof number, "%.6g", field->real);
    break;
  }
  if (line->size_max - line->size < strlen(field->name) + strlen(number) + 4)
    return;
  put_name(line, field->name);
  put(line, number, strlen(number));
}

static void put_time(struct line *line, int64_t now_ms) {
  time_t seconds = (time_t)(now_ms / 1000);
  struct tm parts;
  char text[40] = "";
  if (gmtime_r(&seconds, &parts)) {
    size_t used = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(text + used, sizeof text - used, ".%03dZ", (int)(now_ms % 1000));
  }
  put_string(line, "time", text, strlen(text));
}

struct m2sed_log_field m2sed_log_string(const char *name, const char *text) {
  return (struct m2sed_log_field){.name = name, .string = text, .size = text ? strlen(text) : 0};
}

void m2sed_log_init(struct m2sed_log *log, int fd, enum m2sed_log_level level, enum m2sed_log_format format,
                    const char *instance) {
  memset(log, 0, sizeof *log);
  log->fd = fd;
  log->level = level;
  log->format = format;
  log->instance = instance;
}

/* May the text be written again? *suppressed: lines left out before this one. */
static bool take_turn(struct m2sed_log *log, int64_t now_ms, const char *text, uint32_t *suppressed) {
  uint32_t i = 0;
  *suppressed = 0;
  while (i < log->text_count && log->texts[i].text != text)
    i++;
  if (i == M2SED_LOG_TEXTS_MAX)
    return true;
  if (i == log->text_count) {
    log->text_count++;
    log->texts[i].text = text;
    log->texts[i].window_start_ms = now_ms;
  }
  int64_t age_ms = now_ms - log->texts[i].window_start_ms;
  if (age_ms >= M2SED_LOG_WINDOW_MS || age_ms < 0) {
    *suppressed = log->texts[i].suppressed;
    log->texts[i].window_start_ms = now_ms;
    log->texts[i].written = log->texts[i].suppressed = 0;
  }
  if (log->texts[i].written == M2SED_LOG_BURST) {
    log->texts[i].suppressed++;
    return false;
  }
  log->texts[i].written++;
  return true;
}

void m2sed_log_write_at(struct m2sed_log *log, int64_t now_ms, enum m2sed_log_level level, const char *text,
                        const struct m2sed_log_field *fields, uint32_t count) {
  uint32_t suppressed;
  if (level < log->level || !take_turn(log, now_ms, text, &suppressed))
    return;
  struct line line = {.size_max = M2SED_LOG_LINE_MAX - 1, .json = log->format == M2SED_LOG_JSON};
  if (line.json)
    put(&line, "{", 1);
  put_time(&line, now_ms);
  put_string(&line, "level", level_names[level], strlen(level_names[level]));
  put_string(&line, "instance", log->instance, strlen(log->instance));
  put_string(&line, "event", text, strlen(text));
  for (uint32_t i = 0; i < count; i++)
    put_field(&line, &fields[i]);
  if (suppressed)
    put_field(&line, &M2SED_U("suppressed", suppressed));
  line.size_max = M2SED_LOG_LINE_MAX + 1;
  put(&line, line.json ? "}\n" : "\n", line.json ? 2 : 1);
  /* One write a line keeps lines of several processes apart. What cannot be written has nowhere to be told.
   */
  ssize_t written = write(log->fd, line.text, line.size);
  (void)written;
}

void m2sed_log_write(struct m2sed_log *log, enum m2sed_log_level level, const char *text,
                     const struct m2sed_log_field *fields, uint32_t count) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  m2sed_log_write_at(log, now.tv_sec * 1000 + now.tv_nsec / 1000000, level, text, fields, count);
}
