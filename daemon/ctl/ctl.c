#include "daemon/ctl/ctl.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "model/files/json.h"

/* ---- numbers of the command line ---- */

static const char *option_name(enum m2sed_ctl_option option) {
  static const char *const names[] = {
#define NAME(option, name, value, help) name,
      M2SED_CTL_OPTIONS(NAME)
#undef NAME
  };
  return names[option];
}

int m2sed_ctl_real(const struct m2sed_ctl *ctl, enum m2sed_ctl_option option, double min, double max,
                   double *number) {
  const char *value = ctl->values[option];
  if (!value)
    return 0;
  char *end;
  double read = strtod(value, &end);
  if (end == value || *end || !(read >= min && read <= max))
    return m2sed_ctl_fail(EX_USAGE, "%s: must be a number from %.15g to %.15g, not '%.80s'",
                          option_name(option), min, max, value);
  *number = read;
  return 0;
}

int m2sed_ctl_whole(const struct m2sed_ctl *ctl, enum m2sed_ctl_option option, uint64_t max,
                    uint64_t *number) {
  const char *value = ctl->values[option];
  if (!value)
    return 0;
  char *end;
  errno = 0;
  unsigned long long read = strtoull(value, &end, 10);
  if (value[strspn(value, "0123456789")] || end == value || errno || read > max)
    return m2sed_ctl_fail(EX_USAGE, "%s: must be a whole number up to %llu, not '%.80s'", option_name(option),
                          (unsigned long long)max, value);
  *number = read;
  return 0;
}

/* ---- saying things ---- */

int m2sed_ctl_fail(int status, const char *format, ...) {
  char line[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  fputs("m2sectl: ", stderr);
  fputs(line, stderr);
  fputc('\n', stderr);
  return status;
}

int m2sed_ctl_exit_status(int code) {
  switch (code) {
  case 0:
    return EX_OK;
  case M2SE_EINVAL:
  case M2SE_ELIMIT:
    return EX_CONFIG;
  case M2SE_EMISSING:
    return EX_NOINPUT;
  case M2SE_EIO:
    return EX_IOERR;
  case M2SE_ENOMEM:
    return EX_OSERR;
  default:
    return EX_DATAERR;
  }
}

int m2sed_ctl_fail_error(const struct m2se_error *error) {
  return m2sed_ctl_fail(m2sed_ctl_exit_status(error->code), "%s", error->text);
}

int m2sed_ctl_show(struct m2sed_text *text) {
  if (text->failed)
    return m2sed_ctl_fail(EX_OSERR, "out of memory");
  bool good = fwrite(text->data, 1, text->size, stdout) == text->size && fflush(stdout) == 0;
  m2sed_text_clear(text);
  return good ? 0 : m2sed_ctl_fail(EX_IOERR, "standard output: %s", strerror(errno));
}

int m2sed_ctl_show_json(struct m2se_json_writer *writer) {
  struct m2sed_text text = {0};
  size_t length;
  char *json = m2se_json_finish(writer, &length);
  if (json) {
    m2sed_text_add_bytes(&text, json, length);
    m2sed_text_add_bytes(&text, "\n", 1);
  }
  free(json);
  text.failed |= !json;
  int status = m2sed_ctl_show(&text);
  m2sed_text_free(&text);
  return status;
}

/* ---- signals and time ---- */

static volatile sig_atomic_t interrupted;

static void on_signal(int number) {
  (void)number;
  interrupted = 1;
}

void m2sed_ctl_catch_interrupts(void) {
  struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART: sleeping and reading end */
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
}

bool m2sed_ctl_interrupted(void) {
  return interrupted;
}

int64_t m2sed_ctl_wall_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

uint64_t m2sed_ctl_monotonic_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void m2sed_ctl_sleep_until_ns(uint64_t monotonic_ns) {
  struct timespec until = {.tv_sec = (time_t)(monotonic_ns / 1000000000),
                           .tv_nsec = (long)(monotonic_ns % 1000000000)};
  while (!interrupted && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
    continue;
}
