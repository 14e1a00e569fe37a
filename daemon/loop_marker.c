/* Has Redis all the sequences that it has acknowledged?
 *
 * DESIGN. A key beside the sequences, <prefix>marker, holds the position in each partition up to which Redis
 * has acknowledged them: "partition:position ...", and how many requests to forget a user ("erased:N").
 * Behind each batch of events it is moved, by a script that does so only if it finds what was left there;
 * only then does the trainer hear of the events before. Every connection is asked for it before anything is
 * sent (again) on it. A server that came back with older data, or that somebody emptied, does not have what
 * was left: then the marker becomes LOST in the same moment, so that no start trusts what is sent again
 * there; what the trainer has not heard of is forgotten, all sequences are removed, and the partitions are
 * read again from the first record of the log; a new epoch brings the vectors of items and the model back.
 * Behind a removal stands a marker that was never there before: a server that falls back to a moment before
 * it is noticed. At a start, a marker that lies behind the checkpoint has the partition read again from
 * there, and none (or LOST) from the first record, though the checkpoint may know of no record yet. A marker
 * that lacks requests that the checkpoint has counts as none. With the sequences go the vectors of those who
 * asked to be forgotten. The trainer passes over what it has taken; nothing is counted or sent twice. Not
 * noticed: that a server lost events that it had acknowledged, if it crashed before it moved the marker
 * behind them: a part of one batch; or one request to forget.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "daemon/loop_state.h"
#include "ingest/lua.h"

struct m2sed_marker {
  bool known;                 /* Redis has said what it holds: partitions may be started */
  bool asked;                 /* a move is on its way */
  bool more;                  /* and another is wanted */
  uint64_t covered, verified; /* events before: the newest move stands behind them, and has succeeded */
  enum {
    IDLE,
    DRAIN, /* nothing new is taken until nothing is under way */
    WIPE   /* what is left of the sequences is removed */
  } stage;
  bool vectors; /* of WIPE: the sequences are gone, now the vectors of those who asked to be forgotten */
  int script;
  uint32_t gone_next;  /* slots from here on: items that are deleted go once more */
  bool wipe_again;     /* the connection is another one since: what was removed may be back */
  char *held, *moved;  /* what Redis holds, and what it is to hold */
  char cursor[32];     /* of SCAN */
  struct m2se_key key; /* the marker's */
};

/* In place of a marker, written by the scripts: sequences with holes. No marker, so a start removes them. */
static const char LOST[] = "lost";

int m2sed_marker_new(struct m2sed_loop *loop) {
  loop->marker = calloc(1, sizeof *loop->marker);
  if (!loop->marker)
    return M2SE_ENOMEM;
  loop->marker->gone_next = UINT32_MAX;
  return 0;
}

void m2sed_marker_free(struct m2sed_loop *loop) {
  if (!loop->marker)
    return;
  free(loop->marker->held);
  free(loop->marker->moved);
  free(loop->marker);
}

bool m2sed_marker_known(const struct m2sed_loop *loop) {
  return loop->marker->known;
}

bool m2sed_marker_busy(const struct m2sed_loop *loop) {
  return loop->marker->stage != IDLE;
}

bool m2sed_marker_catching_up(const struct m2sed_loop *loop) {
  bool behind = loop->marker->stage != IDLE;
  for (uint32_t i = 0; i < m2sed_positions_count(loop->positions) && !behind; i++) {
    const struct m2sed_partition *partition = m2sed_positions_at(loop->positions, i);
    behind = partition->started && partition->next_offset < partition->rewound_until;
  }
  return behind;
}

static void take_text(struct m2sed_loop *loop, char **to, const char *text) {
  free(*to);
  *to = strdup(text);
  if (!*to)
    m2sed_loop_fail(loop, M2SE_ENOMEM, "how far the sequences are: out of memory");
}

/* ---- removing what is left, and reading again ---- */

static void scan(struct m2sed_loop *loop);

static void on_removed(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  (void)context, (void)status, (void)reply, (void)error; /* what stays there is found damaged or replaced */
}

static void unlink_key(struct m2sed_loop *loop, const char *bytes, size_t size) {
  const struct m2se_redis_argument arguments[] = {{"UNLINK", 6}, {bytes, size}};
  int code = m2se_redis_send(loop->redis, arguments, 2, on_removed, loop);
  if (code && code != M2SE_EIO)
    m2sed_loop_fail(loop, code, "removing a sequence: %s", m2se_error_text(code));
}

static void begin_scan(struct m2sed_loop *loop) {
  loop->marker->wipe_again = loop->marker->vectors = false;
  memcpy(loop->marker->cursor, "0", 2);
  scan(loop);
}

static void on_wiped(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  struct m2sed_loop *loop = context;
  (void)reply;
  if (status == M2SE_EIO)
    return;
  if (status) {
    m2sed_loop_fail(loop, status, "noting in Redis that the sequences are removed: %s", error);
    return;
  }
  if (loop->marker->wipe_again) {
    begin_scan(loop);
    return;
  }
  loop->marker->stage = IDLE;
  loop->marker->known = true;
  for (uint32_t i = 0; i < m2sed_positions_count(loop->positions); i++) {
    struct m2sed_partition *partition = m2sed_positions_at(loop->positions, i);
    if (!partition->started || loop->phase > M2SED_PHASE_RUNNING)
      continue;
    partition->started = false;
    m2se_kafka_restart(loop->kafka, M2SE_KAFKA_INTERACTIONS, partition->partition);
  }
  m2sed_loop_wake(loop);
}

/* A marker of this moment, which no older data has. */
static void finish_wipe(struct m2sed_loop *loop) {
  struct m2sed_marker *marker = loop->marker;
  char text[40];
  snprintf(text, sizeof text, "removed %" PRId64, loop->now_ms);
  take_text(loop, &marker->held, text);
  if (!marker->held)
    return;
  const struct m2se_redis_argument arguments[] = {
      {"SET", 3}, {marker->key.bytes, marker->key.size}, {marker->held, strlen(marker->held)}};
  int code = m2se_redis_send(loop->redis, arguments, 3, on_wiped, loop);
  if (code && code != M2SE_EIO)
    m2sed_loop_fail(loop, code, "noting in Redis that the sequences are removed: %s", m2se_error_text(code));
}

/* Sequences are made again from the log, which passes over what was before a request to forget. A vector of
 * such a user may be of before it; who came again gets a new one with the sequence. */
static bool is_to_go(const struct m2sed_loop *loop, const char *key, size_t size) {
  if (!loop->marker->vectors)
    return true;
  char user[M2SE_ID_BYTES_MAX + 1];
  uint32_t user_size;
  return m2se_key_parse(loop->config->redis_prefix, M2SE_KEY_USER, key, size, user, &user_size) &&
         m2sed_erasures_cover(m2sed_positions_erasures(loop->positions), XXH3_64bits(user, user_size), 0);
}

static void scan_on(struct m2sed_loop *loop) {
  struct m2sed_marker *marker = loop->marker;
  if (marker->wipe_again) {
    begin_scan(loop);
  } else if (strcmp(marker->cursor, "0") != 0) {
    scan(loop);
  } else if (!marker->vectors && m2sed_positions_erasures(loop->positions)->count) {
    marker->vectors = true;
    scan(loop);
  } else {
    finish_wipe(loop);
  }
}

static void on_scan(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  struct m2sed_loop *loop = context;
  struct m2sed_marker *marker = loop->marker;
  if (status == M2SE_EIO)
    return;
  size_t size = 0;
  const char *cursor = status ? "" : m2se_redis_reply_bytes(m2se_redis_reply_element(reply, 0), &size);
  if (status || !size || size >= sizeof marker->cursor) {
    m2sed_loop_fail(loop, M2SE_EFORMAT, "removing the sequences: %s", status ? error : "no cursor");
    return;
  }
  memcpy(marker->cursor, cursor, size + 1);
  const struct m2se_redis_reply *keys = m2se_redis_reply_element(reply, 1);
  for (size_t i = 0; i < m2se_redis_reply_count(keys); i++) {
    const char *key = m2se_redis_reply_bytes(m2se_redis_reply_element(keys, i), &size);
    if (is_to_go(loop, key, size))
      unlink_key(loop, key, size);
  }
  scan_on(loop);
}

static void scan(struct m2sed_loop *loop) {
  struct m2se_key pattern;
  m2se_key_pattern(&pattern, loop->config->redis_prefix,
                   loop->marker->vectors ? M2SE_KEY_USER : M2SE_KEY_SEQUENCE);
  const struct m2se_redis_argument arguments[] = {
      {"SCAN", 4},  {loop->marker->cursor, strlen(loop->marker->cursor)},
      {"MATCH", 5}, {pattern.bytes, pattern.size},
      {"COUNT", 5}, {"500", 3}};
  int code = m2se_redis_send(loop->redis, arguments, 6, on_scan, loop);
  if (code && code != M2SE_EIO)
    m2sed_loop_fail(loop, code, "removing the sequences: %s", m2se_error_text(code));
}

/* Nothing of the sequences is under way. */
static void wipe(struct m2sed_loop *loop) {
  for (uint32_t i = 0; i < m2sed_positions_count(loop->positions); i++)
    m2sed_positions_at(loop->positions, i)->rewind_offset = 0;
  loop->marker->stage = WIPE;
  begin_scan(loop);
}

/* Older data has the vectors of items that were deleted since. */
static void delete_items_again(struct m2sed_loop *loop) {
  uint32_t *slot = &loop->marker->gone_next, size;
  for (; *slot < m2sed_catalogue_count(loop->catalogue) && !m2se_redis_is_full(loop->redis); ++*slot) {
    if (m2sed_catalogue_state(loop->catalogue, *slot) != M2SED_ITEM_DELETED)
      continue;
    const char *id = m2sed_catalogue_id(loop->catalogue, *slot, &size);
    int code = m2se_publish_item_delete(loop->publisher, id, size, NULL, NULL);
    if (code && code != M2SE_EIO)
      m2sed_loop_fail(loop, code, "deleting an item again: %s", m2se_error_text(code));
  }
  if (*slot >= m2sed_catalogue_count(loop->catalogue))
    *slot = UINT32_MAX;
}

void m2sed_marker_advance(struct m2sed_loop *loop) {
  delete_items_again(loop);
  if (loop->marker->stage == DRAIN && m2sed_loop_forget_events(loop))
    wipe(loop);
  else if (loop->events_end > loop->marker->covered)
    m2sed_marker_move(loop);
}

uint64_t m2sed_marker_verified(const struct m2sed_loop *loop) {
  return loop->marker->verified;
}

/* ---- the marker ---- */

static const char ERASED[] = "erased:"; /* the last entry; not there: none */

static char *format(const struct m2sed_loop *loop) {
  enum { ENTRY_BYTES = 40 };
  uint32_t count = m2sed_positions_count(loop->positions);
  char *text = calloc(count + 1, ENTRY_BYTES), *at = text;
  for (uint32_t i = 0; i < count && text; i++) {
    const struct m2sed_partition *partition = m2sed_positions_at(loop->positions, i);
    /* Until a partition that is to be rewound has started, Redis is behind what the trainer has. */
    int64_t offset = partition->trained_offset < partition->rewind_offset ? partition->trained_offset
                                                                          : partition->rewind_offset;
    if (partition->next_offset >= 0)
      at += snprintf(at, ENTRY_BYTES, "%" PRId32 ":%" PRIu64 " ", partition->partition,
                     m2sed_position_make(partition->epoch, offset));
  }
  uint64_t erased = m2sed_erasures_progress(m2sed_positions_erasures(loop->positions));
  if (text && at > text && erased)
    snprintf(at, ENTRY_BYTES, "%s%" PRIu64 " ", ERASED, erased);
  return text;
}

/* Vectors of items and the model went too, and what was deleted is back. */
static void mend_items(struct m2sed_loop *loop) {
  loop->marker->gone_next = 0;
  if (loop->engine_started && loop->phase <= M2SED_PHASE_RUNNING)
    m2sed_loop_to_trainer(loop, &(struct m2sed_train_message){.kind = M2SED_TRAIN_COPY});
}

/* The script that found it has left LOST there. */
static void lost(struct m2sed_loop *loop) {
  M2SED_LOG(loop->log, ERROR, "Redis has lost sequences: all are made again from the log");
  take_text(loop, &loop->marker->held, LOST);
  loop->marker->stage = DRAIN;
  mend_items(loop);
  if (loop->phase > M2SED_PHASE_RUNNING)
    m2sed_loop_fail(loop, M2SE_EMISSING, "Redis has lost sequences: the next start makes them again");
  m2sed_loop_wake(loop);
}

static void on_moved(void *context, int status, const struct m2se_redis_reply *reply, const char *error) {
  struct m2sed_loop *loop = context;
  struct m2sed_marker *marker = loop->marker;
  marker->asked = false;
  if (status == M2SE_EIO)
    return;
  if (status) {
    m2sed_loop_fail(loop, status, "noting in Redis how far the sequences are: %s", error);
    return;
  }
  if (marker->stage != IDLE) /* the connection has told it already */
    return;
  if (m2se_redis_reply_integer(reply) == 1) {
    free(marker->held);
    marker->held = marker->moved;
    marker->moved = NULL;
    marker->verified = marker->covered;
    m2sed_loop_events_verified(loop);
    if (marker->more || loop->events_end > marker->covered)
      m2sed_marker_move(loop);
    return;
  }
  lost(loop);
}

void m2sed_marker_move(struct m2sed_loop *loop) {
  struct m2sed_marker *marker = loop->marker;
  marker->more = marker->asked;
  if (!marker->known || marker->asked || marker->stage != IDLE)
    return;
  free(marker->moved);
  marker->moved = format(loop);
  if (!marker->moved || !marker->moved[0])
    return;
  const struct m2se_redis_argument arguments[] = {{marker->held, strlen(marker->held)},
                                                  {marker->moved, strlen(marker->moved)}};
  if (m2se_redis_call(loop->redis, marker->script, marker->key.bytes, marker->key.size, arguments, 2,
                      on_moved, loop))
    return; /* no room: the next turn does it */
  marker->asked = true;
  marker->covered = loop->events_end;
}

/* ---- the start ---- */

/* What the marker does not name has no sequences. False: it is no marker, or of before a user was forgotten.
 */
static bool rewind_to(struct m2sed_loop *loop, const char *text) {
  for (uint32_t i = 0; i < m2sed_positions_count(loop->positions); i++)
    m2sed_positions_at(loop->positions, i)->rewind_offset = 0;
  char *end;
  uint64_t erased = 0;
  while (*text) {
    if (strncmp(text, ERASED, strlen(ERASED)) == 0) {
      erased = strtoull(text + strlen(ERASED), &end, 10);
      text = *end ? end + 1 : end;
      continue;
    }
    long number = strtol(text, &end, 10);
    if (end == text || *end != ':' || number < 0 || number > INT32_MAX)
      return false;
    text = end + 1;
    uint64_t position = strtoull(text, &end, 10);
    if (end == text || *end != ' ')
      return false;
    text = end + 1;
    struct m2sed_partition *partition = m2sed_positions_find(loop->positions, (int32_t)number);
    if (partition && position >> M2SED_EPOCH_BITS == partition->epoch)
      partition->rewind_offset = (int64_t)(position & M2SED_OFFSET_MASK);
  }
  return erased >= m2sed_erasures_progress(m2sed_positions_erasures(loop->positions));
}

static bool anything_taken(const struct m2sed_loop *loop) {
  bool taken = false;
  for (uint32_t i = 0; i < m2sed_positions_count(loop->positions); i++)
    taken |= m2sed_positions_at(loop->positions, i)->next_offset >= 0;
  return taken;
}

/* ---- each connection ---- */

static bool is_first(const struct m2sed_marker *marker) {
  return !marker->known && marker->stage == IDLE;
}

static uint32_t ask(void *context, struct m2se_redis_argument *arguments) {
  const struct m2sed_loop *loop = context;
  const struct m2sed_marker *marker = loop->marker;
  const char *held = marker->held ? marker->held : "", *moved = marker->asked ? marker->moved : held;
  const struct m2se_redis_argument words[] = {{"EVAL", 4},
                                              {m2se_lua_marker_ask, strlen(m2se_lua_marker_ask)},
                                              {"1", 1},
                                              {marker->key.bytes, marker->key.size},
                                              {is_first(marker) ? "1" : "0", 1},
                                              {held, strlen(held)},
                                              {moved, strlen(moved)}};
  memcpy(arguments, words, sizeof words);
  return sizeof words / sizeof *words;
}

/* The first connection: is what Redis has to be trusted? */
static void judge_first(struct m2sed_loop *loop, const char *text) {
  struct m2sed_marker *marker = loop->marker;
  bool taken = anything_taken(loop);
  marker->known = text[0] && rewind_to(loop, text);
  take_text(loop, &marker->held, marker->known ? text : LOST);
  if (marker->known)
    return;
  if (taken)
    M2SED_LOG(loop->log, ERROR,
              text[0] ? "Redis is of before what the checkpoint has: all sequences are made from the log"
                      : "Redis has no sequences, the checkpoint has: all are made from the log");
  marker->stage = DRAIN;
}

static enum m2se_redis_verdict judge(void *context, const struct m2se_redis_reply *reply) {
  struct m2sed_loop *loop = context;
  struct m2sed_marker *marker = loop->marker;
  size_t size;
  const char *text = m2se_redis_reply_bytes(reply, &size);
  if (is_first(marker)) {
    judge_first(loop, text);
  } else if (marker->stage != IDLE) { /* nobody can tell whether it fell back again */
    marker->wipe_again = true;
    mend_items(loop);
  } else if (strcmp(text, marker->held) != 0 && !(marker->asked && strcmp(text, marker->moved) == 0)) {
    lost(loop);
  }
  m2sed_loop_wake(loop);
  return M2SE_REDIS_PASS; /* what waits may go: nobody trusts it there any more */
}

int m2sed_marker_begin(struct m2sed_loop *loop, struct m2se_error *error) {
  struct m2sed_marker *marker = loop->marker;
  m2se_key_build(&marker->key, loop->config->redis_prefix, M2SE_KEY_MARKER, NULL, 0);
  marker->script = m2se_redis_add_script(loop->redis, m2se_lua_marker);
  if (marker->script < 0)
    return m2se_error_set(error, marker->script, "no room for another script");
  m2se_redis_add_guard(loop->redis,
                       &(struct m2se_redis_guard){"how far the sequences are", ask, judge, loop});
  return 0;
}
