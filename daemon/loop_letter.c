/* Dead letters: a record that cannot be used goes to <topic>.dlq as it came, with headers that say why. Until
 * Kafka has confirmed it, a copy is kept and sent again; how much of that there may be is bounded, and beyond
 * it nothing more is taken. Only then does its event count (loop_event.c), so no checkpoint is ahead of the
 * dead-letter topic: a crash in between sends the letter once more. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/loop_state.h"

enum {
  HEADERS_MAX = 32, /* of the record; those beyond are left out */
  OWN_HEADERS = 8,
  LETTERS_MAX = 1000,
  BYTES_MAX = 64 << 20,
  RETRY_MS = 1000,
  STUCK_MS = 5000 /* librdkafka waits by itself, and in silence, for a topic that is not there */
};

struct letter {
  struct letter *next;       /* of those to be sent again */
  struct m2sed_event *event; /* that waits for it; NULL: an item */
  char topic[256];
  void *key, *value; /* NULL: none */
  size_t key_size, value_size;
  int64_t timestamp_ms;
  uint32_t header_count;
  struct m2se_kafka_header headers[HEADERS_MAX + OWN_HEADERS]; /* names and values are ours */
  char partition[16], offset[24], left_out[24];
};

struct m2sed_letters {
  uint32_t open; /* not confirmed */
  size_t bytes;
  struct letter *again;
  int64_t again_ms;    /* when the next try is due */
  int64_t progress_ms; /* when one was confirmed, or the first of those now open was sent */
  char why[480];       /* the newest failure since then; "": none */
  char reason[768];    /* for the status */
};

int m2sed_letters_new(struct m2sed_loop *loop) {
  loop->letters = calloc(1, sizeof *loop->letters);
  return loop->letters ? 0 : M2SE_ENOMEM;
}

static size_t bytes_of(const struct letter *letter) {
  size_t bytes = sizeof *letter + letter->key_size + letter->value_size;
  for (uint32_t i = 0; i < letter->header_count; i++)
    bytes += letter->headers[i].size;
  return bytes;
}

static void free_letter(struct letter *letter) {
  for (uint32_t i = 0; i < letter->header_count; i++) {
    free((void *)letter->headers[i].name);
    free((void *)letter->headers[i].value);
  }
  free(letter->key);
  free(letter->value);
  free(letter);
}

void m2sed_letters_free(struct m2sed_loop *loop) {
  if (!loop->letters)
    return;
  while (loop->letters->again) {
    struct letter *letter = loop->letters->again;
    loop->letters->again = letter->next;
    free_letter(letter);
  }
  free(loop->letters);
}

bool m2sed_letters_full(const struct m2sed_loop *loop) {
  return loop->letters->open >= LETTERS_MAX || loop->letters->bytes >= BYTES_MAX;
}

uint32_t m2sed_letters_open(const struct m2sed_loop *loop) {
  return loop->letters->open;
}

static void *copy_bytes(const void *bytes, size_t size, bool *failed) {
  if (!bytes)
    return NULL;
  char *copy = malloc(size + 1);
  if (!copy) {
    *failed = true;
    return NULL;
  }
  memcpy(copy, bytes, size);
  copy[size] = 0;
  return copy;
}

static void add_header(struct letter *letter, const char *name, const void *value, size_t size,
                       bool *failed) {
  struct m2se_kafka_header *header = &letter->headers[letter->header_count];
  header->name = copy_bytes(name, strlen(name), failed);
  header->value = copy_bytes(value, size, failed);
  header->size = header->value ? size : 0;
  letter->header_count++;
}

static struct letter *make_letter(const struct m2se_kafka_record *record, const char *stage, const char *rule,
                                  const char *reason) {
  bool failed = false;
  struct letter *letter = calloc(1, sizeof *letter);
  if (!letter)
    return NULL;
  snprintf(letter->topic, sizeof letter->topic, "%s.dlq", record->topic_name);
  snprintf(letter->partition, sizeof letter->partition, "%d", record->partition);
  snprintf(letter->offset, sizeof letter->offset, "%lld", (long long)record->offset);
  letter->timestamp_ms = record->timestamp_ms > 0 ? record->timestamp_ms : 0;
  letter->key = copy_bytes(record->key, record->key_size, &failed);
  letter->key_size = record->key_size;
  letter->value = copy_bytes(record->value, record->value_size, &failed);
  letter->value_size = record->value_size;
  struct m2se_kafka_header headers[HEADERS_MAX];
  uint32_t count = record->message ? m2se_kafka_record_headers(record, headers, HEADERS_MAX) : 0;
  for (uint32_t i = 0; i < count && i < HEADERS_MAX; i++)
    add_header(letter, headers[i].name, headers[i].value, headers[i].size, &failed);
  const char *const own[][2] = {{"__connect.errors.topic", record->topic_name},
                                {"__connect.errors.partition", letter->partition},
                                {"__connect.errors.offset", letter->offset},
                                {"__connect.errors.stage", stage},
                                {"__connect.errors.reason", reason},
                                {"__connect.errors.exception.class.name", rule},
                                {"__connect.errors.exception.message", reason}};
  for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
    add_header(letter, own[i][0], own[i][1], strlen(own[i][1]), &failed);
  if (!failed)
    return letter;
  free_letter(letter);
  return NULL;
}

static void send_later(struct m2sed_loop *loop, struct letter *letter, const char *why) {
  struct m2sed_letters *letters = loop->letters;
  if (!letters->why[0]) /* once, not for each of a thousand letters every second */
    M2SED_LOG(loop->log, WARN, "dead letters are not taken, trying again", M2SED_S("topic", letter->topic),
              M2SED_S("why", why));
  snprintf(letters->why, sizeof letters->why, "%s: %.200s", letter->topic, why);
  letter->next = letters->again;
  letters->again = letter;
  letters->again_ms = loop->now_ms + RETRY_MS;
}

/* It is over with the letter; counts: the event goes on its way. */
static void close_letter(struct m2sed_loop *loop, struct letter *letter, bool counts) {
  struct m2sed_event *event = letter->event;
  loop->letters->open--;
  loop->letters->bytes -= bytes_of(letter);
  free_letter(letter);
  if (counts && event)
    m2sed_loop_letter_confirmed(loop, event);
}

static void give_up(struct m2sed_loop *loop, struct letter *letter, const char *why) {
  M2SED_LOG(loop->log, ERROR, "dead letter is lost", M2SED_S("topic", letter->topic),
            M2SED_S("of_partition", letter->partition), M2SED_S("of_offset", letter->offset),
            M2SED_S("why", why));
  close_letter(loop, letter, true);
}

static int produce(struct m2sed_loop *loop, struct letter *letter, struct m2se_error *error) {
  const struct m2se_kafka_message message = {.topic = letter->topic,
                                             .partition = -1,
                                             .key = letter->key,
                                             .key_size = letter->key_size,
                                             .value = letter->value,
                                             .value_size = letter->value_size,
                                             .timestamp_ms = letter->timestamp_ms,
                                             .headers = letter->headers,
                                             .header_count = letter->header_count,
                                             .opaque = letter};
  return m2se_kafka_produce(loop->kafka, &message, error);
}

/* Larger than the topic allows, it goes without its value, which stays in its own topic as long as that keeps
 * it: the stream never stops for one record. False: there was nothing more to leave out. */
static bool leave_out_value(struct m2sed_loop *loop, struct letter *letter) {
  if (!letter->value)
    return false;
  bool failed = false;
  loop->letters->bytes -= bytes_of(letter);
  snprintf(letter->left_out, sizeof letter->left_out, "%zu", letter->value_size);
  free(letter->value);
  letter->value = NULL;
  letter->value_size = 0;
  add_header(letter, "m2sed.value_bytes_left_out", letter->left_out, strlen(letter->left_out), &failed);
  loop->letters->bytes += bytes_of(letter);
  M2SED_LOG(loop->log, ERROR, "dead letter is too large, it goes without its value",
            M2SED_S("topic", letter->topic), M2SED_S("of_partition", letter->partition),
            M2SED_S("of_offset", letter->offset), M2SED_S("bytes", letter->left_out));
  return !failed;
}

static void send_letter(struct m2sed_loop *loop, struct letter *letter) {
  struct m2se_error error = {0};
  int code = produce(loop, letter, &error);
  if (code == M2SE_ERANGE)
    code = leave_out_value(loop, letter) ? produce(loop, letter, &error) : code;
  if (code == M2SE_ERANGE)
    give_up(loop, letter, error.text);
  else if (code)
    send_later(loop, letter, error.text);
}

void m2sed_letters_send(struct m2sed_loop *loop, const struct m2se_kafka_record *record,
                        struct m2sed_event *event, const char *stage, const char *rule, const char *reason) {
  struct m2sed_letters *letters = loop->letters;
  M2SED_LOG(loop->log, WARN, "dead letter", M2SED_S("topic", record->topic_name),
            M2SED_I("partition", record->partition), M2SED_I("offset", record->offset),
            M2SED_S("stage", stage), M2SED_S("rule", rule), M2SED_S("reason", reason));
  struct letter *letter = make_letter(record, stage, rule, reason);
  if (!letter) {
    m2sed_loop_fail(loop, M2SE_ENOMEM, "a dead letter: out of memory");
    return;
  }
  letter->event = event;
  if (letters->open++ == 0)
    letters->progress_ms = loop->now_ms;
  letters->bytes += bytes_of(letter);
  send_letter(loop, letter);
}

void m2sed_letters_delivered(struct m2sed_loop *loop, const struct m2se_kafka_delivery *delivery) {
  struct m2sed_letters *letters = loop->letters;
  struct letter *letter = delivery->opaque;
  if (!letter)
    return; /* a status record */
  if (delivery->code == 0) {
    if (letters->why[0])
      M2SED_LOG(loop->log, INFO, "dead letters are taken again", M2SED_S("topic", letter->topic));
    letters->why[0] = 0;
    letters->progress_ms = loop->now_ms;
    close_letter(loop, letter, true);
  } else if (loop->phase >= M2SED_PHASE_KAFKA) {
    close_letter(loop, letter, false); /* its record is read again after the restart */
  } else if (delivery->code == M2SE_ELIMIT) {
    if (leave_out_value(loop, letter))
      send_letter(loop, letter);
    else
      give_up(loop, letter, delivery->why);
  } else {
    send_later(loop, letter, delivery->why);
  }
}

void m2sed_letters_tick(struct m2sed_loop *loop) {
  if (!loop->letters->again || loop->now_ms < loop->letters->again_ms || loop->phase >= M2SED_PHASE_KAFKA)
    return;
  struct letter *letter = loop->letters->again;
  loop->letters->again = NULL;
  while (letter) {
    struct letter *next = letter->next;
    send_letter(loop, letter);
    letter = next;
  }
}

const char *m2sed_letters_reason(struct m2sed_loop *loop) {
  struct m2sed_letters *letters = loop->letters;
  if (!letters->open || (!letters->why[0] && loop->now_ms - letters->progress_ms < STUCK_MS))
    return NULL;
  snprintf(letters->reason, sizeof letters->reason,
           "%u dead letters cannot be delivered, and what came after them cannot be counted: %s",
           letters->open,
           letters->why[0] ? letters->why : "no answer; is there a topic with that name and .dlq?");
  return letters->reason;
}
