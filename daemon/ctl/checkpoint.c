/* m2sectl checkpoint: the generations on the disk, and having a new one written. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>

#include "daemon/checkpoint.h"
#include "daemon/ctl/ctl.h"
#include "model/files/json.h"

/* ---- which generation ---- */

/* What the argument names: one generation (none given: the newest), or with "all" allowed, all. */
static int choose(const struct m2sed_ctl *ctl, bool all_allowed, uint64_t **generations, uint32_t *count) {
  const char *dir = ctl->config.checkpoint_dir, *name = ctl->argument_count ? ctl->arguments[0] : NULL;
  struct m2se_error error = {0};
  if (m2sed_checkpoint_list(dir, generations, count, &error))
    return m2sed_ctl_fail_error(&error);
  if (*count == 0)
    return m2sed_ctl_fail(EX_NOINPUT, "%s: there is no checkpoint", dir);
  if (name && all_allowed && !strcmp(name, "all"))
    return 0;
  uint64_t wanted = (*generations)[*count - 1];
  if (name) {
    const char *digits = strncmp(name, "gen-", 4) == 0 ? name + 4 : name;
    errno = 0;
    wanted = strtoull(digits, NULL, 10);
    if (!digits[0] || digits[strspn(digits, "0123456789")] || errno)
      return m2sed_ctl_fail(EX_USAGE, "'%.80s' is not the number of a generation", name);
    bool there = false;
    for (uint32_t i = 0; i < *count; i++)
      there |= (*generations)[i] == wanted;
    if (!there)
      return m2sed_ctl_fail(EX_NOINPUT, "%s: there is no generation %" PRIu64, dir, wanted);
  }
  (*generations)[0] = wanted;
  *count = 1;
  return 0;
}

/* The parsed manifest of a generation; NULL and why. */
static struct m2se_json *read_manifest(const struct m2sed_ctl *ctl, uint64_t generation,
                                       struct m2se_error *error) {
  char *text;
  size_t length;
  struct m2se_json *root = NULL;
  if (m2sed_checkpoint_manifest(ctl->config.checkpoint_dir, generation, &text, &length, error))
    return NULL;
  m2se_json_parse(&root, text, length, NULL, error);
  free(text);
  return root;
}

static uint64_t number_of(const struct m2se_json *manifest, const char *name) {
  uint64_t number = 0;
  m2se_json_as_uint64(m2se_json_get(manifest, name), name, &number, NULL);
  return number;
}

/* Of all files but the manifest itself. */
static uint64_t bytes_of(const struct m2se_json *manifest) {
  struct m2se_json_iterator file = {0};
  uint64_t bytes = 0;
  while (m2se_json_next(m2se_json_get(manifest, "files"), &file))
    bytes += number_of(file.value, "bytes");
  return bytes;
}

/* ---- list ---- */

static void add_row(struct m2sed_text *text, const struct m2se_json *manifest, uint64_t generation) {
  m2sed_text_add(text, "%10" PRIu64 "  ", generation);
  m2sed_text_add_time(text, (int64_t)number_of(manifest, "created_ms"));
  m2sed_text_add(text, "  %10" PRIu64 "  %14" PRIu64 "  ", number_of(manifest, "step"),
                 number_of(manifest, "trained_events"));
  m2sed_text_add_bytes_size(text, bytes_of(manifest));
  m2sed_text_add(text, "\n");
}

static void put_copy(struct m2se_json_writer *writer, const struct m2se_json *manifest, const char *name) {
  const char *text;
  if (m2se_json_as_string(m2se_json_get(manifest, name), name, &text, NULL, NULL) == 0)
    m2se_json_put_text(writer, name, text);
}

static void put_row(struct m2se_json_writer *writer, const struct m2se_json *manifest, uint64_t generation,
                    const char *damage) {
  m2se_json_put_object(writer, NULL);
  m2se_json_put_decimal(writer, "generation", generation);
  if (manifest) {
    put_copy(writer, manifest, "created");
    put_copy(writer, manifest, "lineage");
    m2se_json_put_decimal(writer, "step", number_of(manifest, "step"));
    m2se_json_put_decimal(writer, "trained_events", number_of(manifest, "trained_events"));
    m2se_json_put_decimal(writer, "bytes", bytes_of(manifest));
  } else {
    m2se_json_put_text(writer, "error", damage);
  }
  m2se_json_put_end(writer);
}

int m2sed_ctl_checkpoint_list(struct m2sed_ctl *ctl) {
  uint64_t *generations = NULL;
  uint32_t count = 0;
  struct m2se_error error = {0};
  if (m2sed_checkpoint_list(ctl->config.checkpoint_dir, &generations, &count, &error))
    return m2sed_ctl_fail_error(&error);
  bool json = m2sed_ctl_has(ctl, M2SED_CTL_JSON);
  struct m2sed_text text = {0};
  struct m2se_json_writer *writer = json ? m2se_json_writer_new(0) : NULL;
  m2se_json_put_array(writer, NULL);
  m2sed_text_add(&text, "%10s  %-20s  %10s  %14s  %s\n", "generation", "written", "step", "trained events",
                 "size");
  for (uint32_t i = 0; i < count; i++) {
    struct m2se_json *manifest = read_manifest(ctl, generations[i], &error);
    put_row(writer, manifest, generations[i], error.text);
    if (manifest)
      add_row(&text, manifest, generations[i]);
    else
      m2sed_text_add(&text, "%10" PRIu64 "  %s\n", generations[i], error.text);
    m2se_json_free(manifest);
  }
  m2se_json_put_end(writer);
  int status = json ? m2sed_ctl_show_json(writer) : m2sed_ctl_show(&text);
  m2sed_text_free(&text);
  free(generations);
  return status;
}

/* ---- show ---- */

static void add_value(struct m2sed_text *text, const struct m2se_json *value) {
  char number[32];
  const char *string = number;
  int64_t whole = 0;
  double real = 0;
  bool truth = false;
  switch (m2se_json_type(value)) {
  case M2SE_JSON_STRING:
    m2se_json_as_string(value, "", &string, NULL, NULL);
    break;
  case M2SE_JSON_INTEGER:
    m2se_json_as_int64(value, "", &whole, NULL);
    snprintf(number, sizeof number, "%" PRId64, whole);
    break;
  case M2SE_JSON_REAL:
    m2se_json_as_double(value, "", &real, NULL);
    snprintf(number, sizeof number, "%.9g", real);
    break;
  case M2SE_JSON_BOOL:
    m2se_json_as_bool(value, "", &truth, NULL);
    string = truth ? "yes" : "no";
    break;
  default:
    string = "-";
  }
  m2sed_text_add_foreign(text, string, strlen(string));
}

/* name  value, one a line; what is inside of an object stands further to the right. Manifests nest three
 * deep. */
static void add_members(struct m2sed_text *text, const struct m2se_json *object, int depth) {
  struct m2se_json_iterator member = {0};
  while (m2se_json_next(object, &member)) {
    m2sed_text_add(text, "%*s", 2 * depth, "");
    m2sed_text_add_foreign(text, member.key, member.key_length);
    if (m2se_json_type(member.value) == M2SE_JSON_OBJECT && depth < 8) {
      m2sed_text_add(text, "\n");
      add_members(text, member.value, depth + 1);
    } else {
      int blanks = 24 - 2 * depth - (int)member.key_length;
      m2sed_text_add(text, "%*s", blanks > 1 ? blanks : 1, "");
      add_value(text, member.value);
      m2sed_text_add(text, "\n");
    }
  }
}

static int show_manifest(const struct m2sed_ctl *ctl, uint64_t generation) {
  struct m2se_error error = {0};
  struct m2sed_text text = {0};
  char *bytes;
  size_t length;
  if (m2sed_checkpoint_manifest(ctl->config.checkpoint_dir, generation, &bytes, &length, &error))
    return m2sed_ctl_fail_error(&error);
  struct m2se_json *root;
  int status = 0;
  if (m2se_json_parse(&root, bytes, length, NULL, &error))
    status = m2sed_ctl_fail(EX_DATAERR, "the manifest of generation %" PRIu64 ": %s", generation, error.text);
  else if (m2sed_ctl_has(ctl, M2SED_CTL_JSON))
    m2sed_text_add_bytes(&text, bytes, length);
  else
    add_members(&text, root, 0);
  if (!status)
    status = m2sed_ctl_show(&text);
  m2se_json_free(root);
  m2sed_text_free(&text);
  free(bytes);
  return status;
}

int m2sed_ctl_checkpoint_show(struct m2sed_ctl *ctl) {
  uint64_t *generations = NULL;
  uint32_t count;
  int status = choose(ctl, false, &generations, &count);
  if (!status)
    status = show_manifest(ctl, generations[0]);
  free(generations);
  return status;
}

/* ---- verify ---- */

static int verify(const struct m2sed_ctl *ctl, const uint64_t *generations, uint32_t count) {
  bool json = m2sed_ctl_has(ctl, M2SED_CTL_JSON);
  struct m2sed_text text = {0};
  struct m2se_json_writer *writer = json ? m2se_json_writer_new(0) : NULL;
  uint32_t damaged = 0;
  m2se_json_put_array(writer, NULL);
  for (uint32_t i = 0; i < count; i++) {
    struct m2se_error error = {0};
    int code = m2sed_checkpoint_verify(ctl->config.checkpoint_dir, generations[i], &error);
    damaged += code != 0;
    m2sed_text_add(&text, "generation %" PRIu64 ": %s", generations[i], code ? "DAMAGED: " : "good");
    m2sed_text_add_foreign(&text, error.text, strlen(error.text));
    m2sed_text_add(&text, "\n");
    m2se_json_put_object(writer, NULL);
    m2se_json_put_decimal(writer, "generation", generations[i]);
    m2se_json_put_bool(writer, "good", !code);
    if (code)
      m2se_json_put_text(writer, "error", error.text);
    m2se_json_put_end(writer);
  }
  m2se_json_put_end(writer);
  int status = json ? m2sed_ctl_show_json(writer) : m2sed_ctl_show(&text);
  m2sed_text_free(&text);
  return status ? status : damaged ? EX_DATAERR : 0;
}

int m2sed_ctl_checkpoint_verify(struct m2sed_ctl *ctl) {
  uint64_t *generations = NULL;
  uint32_t count;
  int status = choose(ctl, true, &generations, &count);
  if (!status)
    status = verify(ctl, generations, count);
  free(generations);
  return status;
}

/* ---- now ---- */

/* The process that holds the lock on this file, as the kernel has it; 0: none. The number in the file alone
 * would not do: its process may be gone, and the number another's by now. Trying to take the lock would not
 * either: a daemon that starts at this moment would be refused. */
static pid_t find_holder(const char *path) {
  /* "1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF": which lock, its kind, ..., the process, device and
   * inode */
  enum { KIND = 1, PROCESS = 4, FILE_ID = 5, WORDS };
  struct stat file;
  char *line = NULL;
  size_t capacity = 0;
  pid_t holder = 0;
  FILE *locks = stat(path, &file) == 0 ? fopen("/proc/locks", "re") : NULL;
  while (locks && !holder && getline(&line, &capacity, locks) >= 0) {
    char *words[WORDS], *rest = line;
    int count = 0;
    while (count < WORDS && (words[count] = strtok_r(rest, " \n", &rest)))
      count++;
    const char *inode = count == WORDS ? strrchr(words[FILE_ID], ':') : NULL; /* stat may know the device by
                                                                                 another number */
    if (inode && !strcmp(words[KIND], "FLOCK") && strtoull(inode + 1, NULL, 10) == file.st_ino)
      holder = (pid_t)strtol(words[PROCESS], NULL, 10);
  }
  if (locks)
    fclose(locks);
  free(line);
  return holder > 0 ? holder : 0;
}

/* And that the file names the same process: then it is the daemon, on this machine. */
static pid_t find_daemon(const char *dir) {
  char path[4096], text[32] = "";
  if (snprintf(path, sizeof path, "%s/lock", dir) >= (int)sizeof path)
    return 0;
  FILE *file = fopen(path, "re");
  if (!file)
    return 0;
  bool read = fgets(text, sizeof text, file);
  fclose(file);
  pid_t holder = find_holder(path);
  return read && holder && strtol(text, NULL, 10) == holder ? holder : 0;
}

/* The newest generation that was written at since_ms or later; 0: none yet. */
static uint64_t find_written_since(const struct m2sed_ctl *ctl, int64_t since_ms) {
  uint64_t *generations, found = 0;
  uint32_t count;
  if (m2sed_checkpoint_list(ctl->config.checkpoint_dir, &generations, &count, NULL))
    return 0;
  struct m2se_json *manifest = count ? read_manifest(ctl, generations[count - 1], NULL) : NULL;
  if (manifest && (int64_t)number_of(manifest, "created_ms") >= since_ms)
    found = generations[count - 1];
  m2se_json_free(manifest);
  free(generations);
  return found;
}

int m2sed_ctl_checkpoint_now(struct m2sed_ctl *ctl) {
  double timeout_seconds = 60;
  int status = m2sed_ctl_real(ctl, M2SED_CTL_TIMEOUT, 0.1, 86400, &timeout_seconds);
  if (status)
    return status;
  const char *dir = ctl->config.checkpoint_dir;
  pid_t pid = find_daemon(dir);
  if (!pid)
    return m2sed_ctl_fail(EX_UNAVAILABLE, "%s: no daemon of this machine works there", dir);
  int64_t asked_ms = m2sed_ctl_wall_ms();
  uint64_t begun_ns = m2sed_ctl_monotonic_ns();
  uint64_t deadline_ns = begun_ns + (uint64_t)(timeout_seconds * 1e9), generation;
  m2sed_ctl_catch_interrupts();
  if (kill(pid, SIGUSR1))
    return m2sed_ctl_fail(EX_NOPERM, "process %d: %s", (int)pid, strerror(errno));
  while (!(generation = find_written_since(ctl, asked_ms))) {
    uint64_t now_ns = m2sed_ctl_monotonic_ns();
    if (m2sed_ctl_interrupted())
      return m2sed_ctl_fail(EX_TEMPFAIL, "interrupted; the checkpoint may still come");
    if (now_ns > deadline_ns || kill(pid, 0))
      return m2sed_ctl_fail(EX_TEMPFAIL, "process %d %s", (int)pid,
                            now_ns > deadline_ns ? "has written none in time: see its log" : "has ended");
    m2sed_ctl_sleep_until_ns(now_ns + 50000000);
  }
  struct m2sed_text text = {0};
  if (m2sed_ctl_has(ctl, M2SED_CTL_JSON))
    m2sed_text_add(&text, "{\"generation\":\"%" PRIu64 "\"}\n", generation);
  else
    m2sed_text_add(&text, "generation %" PRIu64 " is written, after %.1f s\n", generation,
                   (double)(m2sed_ctl_monotonic_ns() - begun_ns) * 1e-9);
  status = m2sed_ctl_show(&text);
  m2sed_text_free(&text);
  return status;
}
