/* m2sectl status: the newest Status from Redis, once or again and again. */
#include <sys/ioctl.h>
#include <sysexits.h>
#include <unistd.h>

#include "daemon/ctl/ask.h"
#include "daemon/ctl/ctl.h"
#include "daemon/ctl/status_view.h"
#include "daemon/status_json.h"
#include "ingest/codec_status.h"
#include "model/files/json.h"

enum { ARENA_BYTES = 4 << 20 }; /* thousands of partitions */

/* One question and its answer. */
struct fetch {
  enum { ASKED, MISSING, UNREADABLE, GOOD } state;
  struct m2se_arena arena;
  struct m2se_status status; /* GOOD */
  struct m2sed_text why;     /* UNREADABLE */
};

static void on_status(void *context, int code, const struct m2se_redis_reply *reply, const char *error) {
  struct fetch *fetch = context;
  struct m2se_refusal refusal;
  size_t size;
  m2sed_text_clear(&fetch->why);
  if (code) {
    fetch->state = UNREADABLE;
    m2sed_text_add(&fetch->why, "%s", error ? error : "the connection was closed");
  } else if (m2se_redis_reply_type(reply) == M2SE_REDIS_NIL) {
    fetch->state = MISSING;
  } else {
    const char *bytes = m2se_redis_reply_bytes(reply, &size);
    bool good = m2se_status_decode(&fetch->status, &fetch->arena, bytes, size, &refusal) == 0;
    fetch->state = good ? GOOD : UNREADABLE;
    if (!good)
      m2sed_text_add(&fetch->why, "not a Status: %s", refusal.text);
  }
}

static int ask_status(struct m2sed_ask *ask, const struct m2sed_config *config, struct fetch *fetch,
                      struct m2se_error *error) {
  struct m2se_key key;
  m2se_key_build(&key, config->redis_prefix, M2SE_KEY_STATUS, NULL, 0);
  const struct m2se_redis_argument get[] = {m2sed_ask_word("GET"), m2sed_ask_key(&key)};
  fetch->state = ASKED;
  return m2sed_ask_send(ask, get, 2, on_status, fetch, error);
}

/* Why there is nothing to show, in one line. */
static void add_nothing(struct m2sed_text *text, const struct m2sed_config *config,
                        const struct fetch *fetch) {
  if (fetch->state == MISSING)
    m2sed_text_add(text, "there is no status in this Redis under '%sstatus': no daemon has run with it",
                   config->redis_prefix);
  else
    m2sed_text_add(text, "'%sstatus': %s", config->redis_prefix, fetch->why.data ? fetch->why.data : "");
}

static int show_json(const struct fetch *fetch, uint32_t indent) {
  struct m2se_json_writer *writer = m2se_json_writer_new(indent);
  int64_t now_ms = m2sed_ctl_wall_ms();
  m2se_json_put_object(writer, NULL);
  m2se_json_put_double(writer, "age_seconds", (double)(now_ms - fetch->status.time_ms) / 1000);
  m2se_json_put_bool(writer, "stale", m2sed_status_is_stale(&fetch->status, now_ms));
  m2sed_status_put_json(writer, &fetch->status);
  m2se_json_put_end(writer);
  return m2sed_ctl_show_json(writer);
}

/* ---- once ---- */

static int show_once(const struct m2sed_ctl *ctl, struct m2sed_ask *ask, struct fetch *fetch) {
  struct m2se_error error = {0};
  struct m2sed_text text = {0};
  int status;
  if (ask_status(ask, &ctl->config, fetch, &error) || m2sed_ask_wait(ask, &error))
    return m2sed_ctl_fail(EX_UNAVAILABLE, "%s", error.text);
  if (fetch->state != GOOD) {
    add_nothing(&text, &ctl->config, fetch);
    status = m2sed_ctl_fail(fetch->state == MISSING ? EX_NOINPUT : EX_DATAERR, "%s", text.data);
  } else if (m2sed_ctl_has(ctl, M2SED_CTL_JSON)) {
    status = show_json(fetch, 2);
  } else {
    const struct m2sed_status_view view = {.status = &fetch->status,
                                           .now_ms = m2sed_ctl_wall_ms(),
                                           .exclude_seen = ctl->config.serve_exclude_seen};
    m2sed_status_add_panel(&text, &view);
    status = m2sed_ctl_show(&text);
  }
  m2sed_text_free(&text);
  return status;
}

/* ---- again and again ---- */

struct watch {
  const struct m2sed_ctl *ctl;
  struct m2sed_status_history history;
  struct m2sed_text text, screen;
  uint32_t lines_shown; /* on the terminal, to be drawn over */
};

static uint32_t count_lines(const struct m2sed_text *text) {
  uint32_t lines = 0;
  for (size_t i = 0; i < text->size; i++)
    lines += text->data[i] == '\n';
  return lines;
}

/* Draws over what was drawn before, so that what stood above stays and the last picture is left behind. */
static int draw(struct watch *watch) {
  struct winsize size = {0};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) || size.ws_row < 3 || size.ws_col < 10)
    size = (struct winsize){.ws_row = 24, .ws_col = 80};
  if (watch->lines_shown)
    m2sed_text_add(&watch->screen, "\033[%uF", watch->lines_shown);
  size_t head = watch->screen.size;
  m2sed_status_fit(&watch->screen, &watch->text, size.ws_row - 1u, size.ws_col);
  struct m2sed_text drawn = {.data = watch->screen.data + head, .size = watch->screen.size - head};
  watch->lines_shown = count_lines(&drawn);
  m2sed_text_add(&watch->screen, "\033[J");
  m2sed_text_clear(&watch->text);
  return m2sed_ctl_show(&watch->screen);
}

/* Why there is no status this second; to programs on standard error, since it is no JSON. */
static int show_trouble(struct watch *watch, const struct fetch *fetch, const struct m2se_error *trouble,
                        bool terminal) {
  struct m2sed_text why = {0};
  int status = 0;
  if (trouble->code)
    m2sed_text_add(&why, "%s", trouble->text);
  else
    add_nothing(&why, &watch->ctl->config, fetch);
  if (m2sed_ctl_has(watch->ctl, M2SED_CTL_JSON)) {
    m2sed_ctl_fail(0, "%s", why.data);
  } else if (terminal) {
    m2sed_text_add_bytes(&watch->text, why.data, why.size);
    status = draw(watch);
  } else {
    m2sed_text_add_time(&watch->text, m2sed_ctl_wall_ms());
    m2sed_text_add(&watch->text, " %s\n", why.data);
    status = m2sed_ctl_show(&watch->text);
  }
  m2sed_text_free(&why);
  return status;
}

static int show_second(struct watch *watch, const struct fetch *fetch, bool terminal) {
  const struct m2sed_status_view view = {.status = &fetch->status,
                                         .now_ms = m2sed_ctl_wall_ms(),
                                         .exclude_seen = watch->ctl->config.serve_exclude_seen,
                                         .history = terminal ? &watch->history : NULL};
  m2sed_status_remember(&watch->history, &fetch->status);
  if (m2sed_ctl_has(watch->ctl, M2SED_CTL_JSON))
    return show_json(fetch, 0);
  if (terminal) {
    m2sed_status_add_panel(&watch->text, &view);
    return draw(watch);
  }
  m2sed_status_add_line(&watch->text, &view);
  m2sed_text_add(&watch->text, "\n");
  return m2sed_ctl_show(&watch->text);
}

static int watch_status(const struct m2sed_ctl *ctl, struct m2sed_ask *ask, struct fetch *fetch) {
  static struct watch watch;
  watch.ctl = ctl;
  bool terminal = isatty(STDOUT_FILENO) && !m2sed_ctl_has(ctl, M2SED_CTL_JSON);
  m2sed_ctl_catch_interrupts();
  fetch->state = MISSING;
  int status = 0;
  for (uint64_t due_ns = m2sed_ctl_monotonic_ns(); !status && !m2sed_ctl_interrupted();) {
    struct m2se_error trouble = {0};
    if (fetch->state == ASKED || ask_status(ask, &ctl->config, fetch, &trouble) == 0)
      m2sed_ask_wait(ask, &trouble);
    if (m2sed_ctl_interrupted())
      break;
    bool good = !trouble.code && fetch->state == GOOD;
    status = good ? show_second(&watch, fetch, terminal) : show_trouble(&watch, fetch, &trouble, terminal);
    uint64_t now_ns = m2sed_ctl_monotonic_ns();
    due_ns += 1000000000;
    due_ns = due_ns > now_ns ? due_ns : now_ns;
    m2sed_ask_run_until_ns(ask, due_ns);
  }
  m2sed_text_free(&watch.text);
  m2sed_text_free(&watch.screen);
  return status;
}

int m2sed_ctl_status(struct m2sed_ctl *ctl) {
  static struct fetch fetch;
  struct m2sed_ask *ask;
  struct m2se_error error = {0};
  if (m2se_arena_new(&fetch.arena, ARENA_BYTES))
    return m2sed_ctl_fail(EX_OSERR, "out of memory");
  int code = m2sed_ask_open(&ask, &ctl->config, &error);
  int status = code                                  ? m2sed_ctl_fail_error(&error)
               : m2sed_ctl_has(ctl, M2SED_CTL_WATCH) ? watch_status(ctl, ask, &fetch)
                                                     : show_once(ctl, ask, &fetch);
  if (!code)
    m2sed_ask_close(ask);
  m2se_arena_free(&fetch.arena);
  m2sed_text_free(&fetch.why);
  return status;
}
