/* The log: one structured line an event on a descriptor, whatever the values contain.
 *
 * DESIGN. An event is a fixed text and named values: M2SED_LOG(log, WARN, "dead letter", M2SED_S("topic", t),
 * M2SED_U("offset", o)). The text is also the key of the rate limit: after M2SED_LOG_BURST lines within
 * M2SED_LOG_WINDOW_MS further ones are counted, and the first line after the window says how many were left
 * out ("suppressed"). Control characters, quotes and broken UTF-8 are escaped, so that a line is a line.
 * Only the daemon logs; libraries return errors. Thread: the loop's (or the only one, before it runs).
 */
#ifndef M2SED_LOG_H
#define M2SED_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum m2sed_log_level { M2SED_LOG_DEBUG, M2SED_LOG_INFO, M2SED_LOG_WARN, M2SED_LOG_ERROR };
enum m2sed_log_format { M2SED_LOG_LOGFMT, M2SED_LOG_JSON };
enum {
  M2SED_LOG_BURST = 5,
  M2SED_LOG_WINDOW_MS = 10000,
  M2SED_LOG_TEXTS_MAX = 64,
  M2SED_LOG_LINE_MAX = 4096
};

struct m2sed_log_field {
  const char *name; /* letters, digits and '_' */
  enum { M2SED_FIELD_IS_STRING, M2SED_FIELD_IS_SIGNED, M2SED_FIELD_IS_UNSIGNED, M2SED_FIELD_IS_REAL } kind;
  const char *string; /* any bytes; NULL is written as "" */
  size_t size;
  int64_t integer;
  uint64_t whole;
  double real;
};
#define M2SED_S(name, text) m2sed_log_string(name, text)
#define M2SED_B(name, bytes, size)                                                                           \
  ((struct m2sed_log_field){name, M2SED_FIELD_IS_STRING, bytes, size, 0, 0, 0})
#define M2SED_I(name, value) ((struct m2sed_log_field){name, M2SED_FIELD_IS_SIGNED, NULL, 0, value, 0, 0})
#define M2SED_U(name, value) ((struct m2sed_log_field){name, M2SED_FIELD_IS_UNSIGNED, NULL, 0, 0, value, 0})
#define M2SED_R(name, value) ((struct m2sed_log_field){name, M2SED_FIELD_IS_REAL, NULL, 0, 0, 0, value})
struct m2sed_log_field m2sed_log_string(const char *name, const char *text); /* NUL-terminated or NULL */

struct m2sed_log {
  int fd;
  enum m2sed_log_level level;
  enum m2sed_log_format format;
  const char *instance; /* borrowed; in every line */
  struct {
    const char *text;
    int64_t window_start_ms;
    uint32_t written, suppressed;
  } texts[M2SED_LOG_TEXTS_MAX];
  uint32_t text_count;
};

void m2sed_log_init(struct m2sed_log *log, int fd, enum m2sed_log_level level, enum m2sed_log_format format,
                    const char *instance);

/* text: a string literal (its address is kept). What does not fit M2SED_LOG_LINE_MAX is cut within its value.
 * now_ms: of the wall clock; a test passes its own. */
void m2sed_log_write_at(struct m2sed_log *log, int64_t now_ms, enum m2sed_log_level level, const char *text,
                        const struct m2sed_log_field *fields, uint32_t count);
void m2sed_log_write(struct m2sed_log *log, enum m2sed_log_level level, const char *text,
                     const struct m2sed_log_field *fields, uint32_t count);

/* At least one field. */
#define M2SED_LOG(log, LEVEL, text, ...)                                                                     \
  m2sed_log_write(log, M2SED_LOG_##LEVEL, text, (const struct m2sed_log_field[]){__VA_ARGS__},               \
                  sizeof((const struct m2sed_log_field[]){__VA_ARGS__}) / sizeof(struct m2sed_log_field))

#endif
