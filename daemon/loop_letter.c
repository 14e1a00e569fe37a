/* Dead letters: a record that cannot be used goes to <topic>.dlq as it came, with headers that say why. Until
 * Kafka has confirmed it, a copy is kept and sent again; how much of that there may be is bounded, and beyond
 * it nothing more is taken. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/loop_state.h"

enum { HEADERS_MAX = 32, OWN_HEADERS = 7, LETTERS_MAX = 1000, BYTES_MAX = 64 << 20, RETRY_MS = 1000 };

struct letter {
  struct letter *next; /* of those to be sent again */
  char topic[256];
  void *key, *value; /* NULL: none */
  size_t key_size, value_size;
  int64_t timestamp_ms;
  uint32_t header_count;
  struct m2se_kafka_header headers[HEADERS_MAX + OWN_HEADERS]; /* names and values are ours */
  char partition[16], offset[24];
};

struct m2sed_letters {
  uint32_t open; /* not confirmed */
  size_t bytes;
  struct letter *again;
  int64_t again_ms; /* when the next try is due */
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
  const char *const own[OWN_HEADERS][2] = {{"__connect.errors.topic", record->topic_name},
                                           {"__connect.errors.partition", letter->partition},
                                           {"__connect.errors.offset", letter->offset},
                                           {"__connect.errors.stage", stage},
                                           {"__connect.errors.reason", reason},
                                           {"__connect.errors.exception.class.name", rule},
                                           {"__connect.errors.exception.message", reason}};
  for (int i = 0; i < OWN_HEADERS; i++)
    add_header(letter, own[i][0], own[i][1], strlen(own[i][1]), &failed);
  if (!failed)
    return letter;
  free_letter(letter);
  return NULL;
}

static void send_later(struct m2sed_loop *loop, struct letter *letter) {
  letter->next = loop->letters->again;
  loop->letters->again = letter;
  loop->letters->again_ms = loop->now_ms + RETRY_MS;
}

static void produce(struct m2sed_loop *loop, struct letter *letter) {
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
  struct m2se_error error = {0};
  if (m2se_kafka_produce(loop->kafka, &message, &error) == 0)
    return;
  M2SED_LOG(loop->log, WARN, "dead letter cannot be sent, trying again", M2SED_S("topic", letter->topic),
            M2SED_S("why", error.text));
  send_later(loop, letter);
}

void m2sed_letters_send(struct m2sed_loop *loop, const struct m2se_kafka_record *record, const char *stage,
                        const char *rule, const char *reason) {
  M2SED_LOG(loop->log, WARN, "dead letter", M2SED_S("topic", record->topic_name),
            M2SED_I("partition", record->partition), M2SED_I("offset", record->offset),
            M2SED_S("stage", stage), M2SED_S("rule", rule), M2SED_S("reason", reason));
  struct letter *letter = make_letter(record, stage, rule, reason);
  if (!letter) {
    m2sed_loop_fail(loop, M2SE_ENOMEM, "a dead letter: out of memory");
    return;
  }
  loop->letters->open++;
  loop->letters->bytes += bytes_of(letter);
  produce(loop, letter);
}

void m2sed_letters_delivered(struct m2sed_loop *loop, const struct m2se_kafka_delivery *delivery) {
  struct letter *letter = delivery->opaque;
  if (!letter)
    return; /* a status record */
  if (delivery->code == M2SE_EIO && loop->phase < M2SED_PHASE_KAFKA) {
    M2SED_LOG(loop->log, WARN, "dead letter was not taken, trying again", M2SED_S("topic", letter->topic),
              M2SED_S("why", delivery->why));
    send_later(loop, letter);
    return;
  }
  if (delivery->code)
    M2SED_LOG(loop->log, ERROR, "dead letter is lost", M2SED_S("topic", letter->topic),
              M2SED_S("of_partition", letter->partition), M2SED_S("of_offset", letter->offset),
              M2SED_S("why", delivery->why));
  loop->letters->open--;
  loop->letters->bytes -= bytes_of(letter);
  free_letter(letter);
}

void m2sed_letters_tick(struct m2sed_loop *loop) {
  if (!loop->letters->again || loop->now_ms < loop->letters->again_ms || loop->phase >= M2SED_PHASE_KAFKA)
    return;
  struct letter *letter = loop->letters->again;
  loop->letters->again = NULL;
  while (letter) {
    struct letter *next = letter->next;
    produce(loop, letter);
    letter = next;
  }
}
