/* m2sectl dlq: the records that the daemon could not use, as they stand in <topic>.dlq.
 *
 * Both commands read each partition up to the end that it has when they begin: while records come back, the
 * daemon may add new ones. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "daemon/ctl/ctl.h"
#include "ingest/kafka.h"
#include "model/files/json.h"

enum {
  PARTITIONS_MAX = 1024,
  HEADERS_MAX = 128,
  ASK_MS = 10000,     /* for the topic to be there */
  SILENCE_MS = 30000, /* then there is something wrong */
  GIVE_UP_MS = 10000, /* for what has been sent */
  RECORDS_A_POLL = 64,
  UNSENT_MAX = 1024,
  VALUE_SHOWN = 60, /* bytes */
  NEWEST_MAX = 100000
};

/* Who wrote a header decides whether it goes back with the record: see daemon/loop_letter.c. */
static const char own_prefix[] = "__connect.errors.", left_out_name[] = "m2sed.value_bytes_left_out";

struct letters {
  const struct m2sed_ctl *ctl;
  const char *topic; /* that the records belong to */
  char dead_topic[M2SED_TEXT_MAX + 8];
  struct m2se_kafka *kafka;
  struct m2se_kafka_end ends[PARTITIONS_MAX]; /* of the dead letters, by their partition */
  uint32_t partitions, partitions_ended, topic_partitions;
  bool replay, dry_run;
  const char *rule; /* NULL: any */
  uint64_t newest, from, limit;

  struct m2sed_text text; /* list */
  struct m2se_json_writer *writer;
  uint64_t chosen, without_value, acknowledged, failed, refused; /* replay */
  int64_t limit_partition, limit_offset;                         /* of the first beyond the limit */
  uint64_t heard_ns;
  bool ended; /* Kafka will do nothing any more */
};

/* ---- one letter ---- */

struct letter {
  const struct m2se_kafka_record *record;
  struct m2se_kafka_header headers[HEADERS_MAX];
  uint32_t header_count;
};

static void open_letter(struct letter *letter, const struct m2se_kafka_record *record) {
  letter->record = record;
  uint32_t count = m2se_kafka_record_headers(record, letter->headers, HEADERS_MAX);
  letter->header_count = count < HEADERS_MAX ? count : HEADERS_MAX;
}

static const struct m2se_kafka_header *find_header(const struct letter *letter, const char *name) {
  /* The daemon's own stand behind those that the record came with. */
  for (uint32_t i = letter->header_count; i-- > 0;)
    if (!strcmp(letter->headers[i].name, name) && letter->headers[i].value)
      return &letter->headers[i];
  return NULL;
}

/* The part of the daemon's headers that stands behind their prefix. */
static struct m2se_kafka_header own_header(const struct letter *letter, const char *name) {
  char whole[64];
  snprintf(whole, sizeof whole, "%s%s", own_prefix, name);
  const struct m2se_kafka_header *header = find_header(letter, whole);
  return header ? *header : (struct m2se_kafka_header){.name = name, .value = "", .size = 0};
}

/* -1: it does not say. */
static int64_t own_number(const struct letter *letter, const char *name) {
  struct m2se_kafka_header header = own_header(letter, name);
  char digits[24];
  if (header.size < 1 || header.size >= sizeof digits)
    return -1;
  memcpy(digits, header.value, header.size);
  digits[header.size] = '\0';
  char *end;
  errno = 0;
  long long number = strtoll(digits, &end, 10);
  return *end || errno || number < 0 ? -1 : number;
}

static bool is_wanted(const struct letters *letters, const struct letter *letter) {
  struct m2se_kafka_header rule = own_header(letter, "exception.class.name");
  return !letters->rule ||
         (strlen(letters->rule) == rule.size && memcmp(letters->rule, rule.value, rule.size) == 0);
}

/* ---- list ---- */

static void put_header(struct m2se_json_writer *writer, const char *key, struct m2se_kafka_header header) {
  m2se_json_put_string(writer, key, header.value, header.size);
}

static void put_letter(struct m2se_json_writer *writer, const struct letter *letter) {
  const struct m2se_kafka_record *record = letter->record;
  size_t shown = record->value_size < VALUE_SHOWN ? record->value_size : VALUE_SHOWN;
  m2se_json_put_object(writer, NULL);
  m2se_json_put_int64(writer, "partition", record->partition);
  m2se_json_put_int64(writer, "offset", record->offset);
  m2se_json_put_object(writer, "of");
  put_header(writer, "topic", own_header(letter, "topic"));
  m2se_json_put_int64(writer, "partition", own_number(letter, "partition"));
  m2se_json_put_int64(writer, "offset", own_number(letter, "offset"));
  m2se_json_put_end(writer);
  put_header(writer, "stage", own_header(letter, "stage"));
  put_header(writer, "rule", own_header(letter, "exception.class.name"));
  put_header(writer, "reason", own_header(letter, "exception.message"));
  if (record->key)
    m2se_json_put_string(writer, "key", record->key, record->key_size);
  else
    m2se_json_put_null(writer, "key");
  m2se_json_put_int64(writer, "value_bytes", (int64_t)record->value_size);
  if (record->value)
    m2se_json_put_string(writer, "value_begins", record->value, shown);
  else
    m2se_json_put_null(writer, "value_begins");
  m2se_json_put_end(writer);
}

static void add_foreign(struct m2sed_text *text, const void *bytes, size_t size) {
  if (bytes)
    m2sed_text_add_foreign(text, bytes, size);
  else
    m2sed_text_add(text, "(none)");
}

static void add_letter(struct m2sed_text *text, const struct letter *letter) {
  const struct m2se_kafka_record *record = letter->record;
  struct m2se_kafka_header rule = own_header(letter, "exception.class.name"),
                           reason = own_header(letter, "exception.message");
  size_t shown = record->value_size < VALUE_SHOWN ? record->value_size : VALUE_SHOWN;
  m2sed_text_add(text, "%d/%" PRId64 "  of %" PRId64 "/%" PRId64 "  ", record->partition, record->offset,
                 own_number(letter, "partition"), own_number(letter, "offset"));
  add_foreign(text, rule.value, rule.size);
  m2sed_text_add(text, ": ");
  add_foreign(text, reason.value, reason.size);
  m2sed_text_add(text, "\n    key ");
  add_foreign(text, record->key, record->key_size);
  m2sed_text_add(text, "  value of %zu bytes: ", record->value_size);
  add_foreign(text, record->value, shown);
  m2sed_text_add(text, "%s\n", shown < record->value_size ? "..." : "");
}

/* ---- replay ---- */

/* Back to the partition that it came from, so that it stands behind what its user has done there. */
static void send_back(struct letters *letters, const struct letter *letter) {
  struct m2se_kafka_header headers[HEADERS_MAX];
  uint32_t count = 0;
  for (uint32_t i = 0; i < letter->header_count; i++)
    if (strncmp(letter->headers[i].name, own_prefix, strlen(own_prefix)) != 0)
      headers[count++] = letter->headers[i];
  int64_t partition = own_number(letter, "partition");
  const struct m2se_kafka_message message = {
      .topic = letters->topic,
      .partition = partition < letters->topic_partitions ? (int32_t)partition : -1,
      .key = letter->record->key,
      .key_size = letter->record->key_size,
      .value = letter->record->value,
      .value_size = letter->record->value_size,
      .headers = headers,
      .header_count = count};
  struct m2se_error error = {0};
  if (m2se_kafka_produce(letters->kafka, &message, &error)) {
    letters->refused++;
    m2sed_ctl_fail(0, "%s %d/%" PRId64 ": %s", letters->dead_topic, letter->record->partition,
                   letter->record->offset, error.text);
  }
}

static void replay_letter(struct letters *letters, const struct letter *letter) {
  if (find_header(letter, left_out_name)) {
    letters->without_value++; /* its value is not here */
    return;
  }
  letters->chosen++;
  if (!letters->dry_run)
    send_back(letters, letter);
}

/* ---- reading ---- */

static int64_t on_start(void *arg, const struct m2se_kafka_start *start) {
  const struct letters *letters = arg;
  if (start->partition >= (int32_t)letters->partitions)
    return M2SE_KAFKA_HOLD; /* it was added after the ends were asked */
  int64_t end = letters->ends[start->partition].high, at = start->low;
  if (letters->replay && (int64_t)letters->from > at)
    at = (int64_t)letters->from;
  if (!letters->replay && end - (int64_t)letters->newest > at)
    at = end - (int64_t)letters->newest;
  return at < start->high ? at : start->high;
}

static bool on_record(void *arg, const struct m2se_kafka_record *record) {
  struct letters *letters = arg;
  struct letter letter;
  letters->heard_ns = m2sed_ctl_monotonic_ns();
  if (record->offset >= letters->ends[record->partition].high)
    return true;
  open_letter(&letter, record);
  if (!is_wanted(letters, &letter))
    return true;
  if (letters->replay && letters->chosen == letters->limit) {
    if (letters->limit_offset < 0) {
      letters->limit_partition = record->partition;
      letters->limit_offset = record->offset;
    }
    return false;
  }
  if (letters->replay)
    replay_letter(letters, &letter);
  else if (letters->writer)
    put_letter(letters->writer, &letter);
  else
    add_letter(&letters->text, &letter);
  return m2se_kafka_unsent(letters->kafka) < UNSENT_MAX;
}

static void on_end(void *arg, enum m2se_kafka_topic topic, int32_t partition, int64_t high) {
  (void)topic, (void)partition, (void)high;
  struct letters *letters = arg;
  letters->heard_ns = m2sed_ctl_monotonic_ns();
  letters->partitions_ended++;
}

static void on_delivered(void *arg, const struct m2se_kafka_delivery *delivery) {
  struct letters *letters = arg;
  letters->heard_ns = m2sed_ctl_monotonic_ns();
  letters->acknowledged += !delivery->code;
  if (delivery->code && letters->failed++ == 0)
    m2sed_ctl_fail(0, "Kafka: %s", delivery->why);
}

static void on_error(void *arg, enum m2se_kafka_error_class class, const char *text) {
  struct letters *letters = arg;
  letters->ended |= class == M2SE_KAFKA_FATAL;
  if (class != M2SE_KAFKA_RETRY)
    m2sed_ctl_fail(0, "Kafka: %s", text);
}

static int query(struct letters *letters, const char *topic, struct m2se_kafka_end *ends, uint32_t max,
                 uint32_t *count) {
  struct m2se_error error = {0};
  int partitions = m2se_kafka_query_ends(letters->kafka, topic, ends, max, ASK_MS, &error);
  if (partitions < 0)
    return m2sed_ctl_fail(partitions == M2SE_EMISSING ? EX_NOINPUT : EX_UNAVAILABLE, "Kafka at %s: %s",
                          letters->ctl->config.kafka_brokers, error.text);
  if (max && (uint32_t)partitions > max)
    return m2sed_ctl_fail(EX_CONFIG, "topic %s has more than %u partitions", topic, max);
  *count = (uint32_t)partitions;
  return 0;
}

/* By their number, however the answer was ordered. */
static int compare_ends(const void *a, const void *b) {
  return ((const struct m2se_kafka_end *)a)->partition - ((const struct m2se_kafka_end *)b)->partition;
}

static int connect_kafka(struct letters *letters) {
  const struct m2sed_config *config = &letters->ctl->config;
  struct m2se_kafka_property properties[M2SED_PROPERTIES_MAX];
  for (uint32_t i = 0; i < config->kafka_property_count; i++)
    properties[i] =
        (struct m2se_kafka_property){config->kafka_properties[i].name, config->kafka_properties[i].value};
  const struct m2se_kafka_settings settings = {
      .brokers = config->kafka_brokers,
      .client_id = "m2sectl",
      .topics = {[M2SE_KAFKA_ITEMS] = letters->dead_topic}, /* whole, without a group */
      .ordered_producer = true,
      .properties = properties,
      .property_count = config->kafka_property_count};
  const struct m2se_kafka_callbacks callbacks = {.arg = letters,
                                                 .record = on_record,
                                                 .start = on_start,
                                                 .end = on_end,
                                                 .delivered = on_delivered,
                                                 .error = on_error};
  struct m2se_error error = {0};
  if (m2se_kafka_new(&letters->kafka, &settings, &callbacks, &error))
    return m2sed_ctl_fail(EX_CONFIG, "Kafka: %s", error.text);
  int status = query(letters, letters->dead_topic, letters->ends, PARTITIONS_MAX, &letters->partitions);
  if (status)
    return status;
  qsort(letters->ends, letters->partitions, sizeof letters->ends[0], compare_ends);
  return letters->replay ? query(letters, letters->topic, NULL, 0, &letters->topic_partitions) : 0;
}

static int read_letters(struct letters *letters) {
  m2sed_ctl_catch_interrupts();
  letters->heard_ns = m2sed_ctl_monotonic_ns();
  while (letters->partitions_ended < letters->partitions && letters->limit_offset < 0) {
    bool room = m2se_kafka_unsent(letters->kafka) < UNSENT_MAX;
    bool more = m2se_kafka_poll(letters->kafka, room ? M2SE_KAFKA_READ_ITEMS : 0, RECORDS_A_POLL);
    uint64_t now_ns = m2sed_ctl_monotonic_ns();
    if (m2sed_ctl_interrupted())
      return m2sed_ctl_fail(EX_TEMPFAIL, "interrupted");
    if (letters->ended || now_ns - letters->heard_ns > SILENCE_MS * UINT64_C(1000000))
      return m2sed_ctl_fail(EX_UNAVAILABLE, "Kafka at %s: no answer", letters->ctl->config.kafka_brokers);
    if (!more)
      m2sed_ctl_sleep_until_ns(now_ns + 2000000);
  }
  return 0;
}

/* ---- the commands ---- */

static int show_list(struct letters *letters) {
  if (letters->writer) {
    m2se_json_put_end(letters->writer);
    int status = m2sed_ctl_show_json(letters->writer);
    letters->writer = NULL;
    return status;
  }
  if (!letters->text.size)
    m2sed_text_add(&letters->text, "%s: no such record\n", letters->dead_topic);
  return m2sed_ctl_show(&letters->text);
}

static int show_replay(struct letters *letters) {
  if (letters->writer) {
    m2se_json_put_text(letters->writer, "topic", letters->topic);
    m2se_json_put_bool(letters->writer, "dry_run", letters->dry_run);
    m2se_json_put_int64(letters->writer, "chosen", (int64_t)letters->chosen);
    m2se_json_put_int64(letters->writer, "acknowledged", (int64_t)letters->acknowledged);
    m2se_json_put_int64(letters->writer, "without_value", (int64_t)letters->without_value);
    m2se_json_put_int64(letters->writer, "next_offset", letters->limit_offset);
    return show_list(letters);
  }
  struct m2sed_text *text = &letters->text;
  m2sed_text_add(text, "%s: ", letters->topic);
  m2sed_text_add_count(text, letters->dry_run ? letters->chosen : letters->acknowledged);
  m2sed_text_add(text, letters->dry_run ? " records would go back" : " records went back, at new positions");
  m2sed_text_add(text, "; a copy stays in %s\n", letters->dead_topic);
  if (letters->without_value)
    m2sed_text_add(text, "left out: %" PRIu64 " whose value was too large to be kept there\n",
                   letters->without_value);
  if (letters->limit_offset >= 0)
    m2sed_text_add(text, "the next would be %" PRId64 "/%" PRId64 ": go on with --from %" PRId64 "\n",
                   letters->limit_partition, letters->limit_offset, letters->limit_offset);
  return m2sed_ctl_show(text);
}

static int run(struct letters *letters) {
  int status = connect_kafka(letters);
  if (!status)
    status = read_letters(letters);
  if (letters->chosen && !letters->dry_run)
    m2se_kafka_flush(letters->kafka, GIVE_UP_MS);
  if (status && !letters->replay)
    return status;
  int shown = letters->replay ? show_replay(letters) : show_list(letters);
  uint64_t missing = letters->dry_run || !letters->replay ? 0 : letters->chosen - letters->acknowledged;
  if (!status && missing)
    status = m2sed_ctl_fail(EX_IOERR, "%" PRIu64 " records have not reached Kafka", missing);
  return status ? status : shown;
}

static int start(struct m2sed_ctl *ctl, bool replay) {
  const char *which = ctl->argument_count ? ctl->arguments[0] : "interactions";
  bool items = !strcmp(which, "items");
  if (!items && strcmp(which, "interactions") != 0)
    return m2sed_ctl_fail(EX_USAGE, "'%.80s': must be interactions or items", which);
  struct letters *letters = calloc(1, sizeof *letters);
  if (!letters)
    return m2sed_ctl_fail(EX_OSERR, "out of memory");
  *letters = (struct letters){.ctl = ctl,
                              .topic = items ? ctl->config.kafka_items : ctl->config.kafka_interactions,
                              .replay = replay,
                              .dry_run = m2sed_ctl_has(ctl, M2SED_CTL_DRY_RUN),
                              .rule = ctl->values[M2SED_CTL_RULE],
                              .newest = 20,
                              .limit = UINT64_MAX,
                              .limit_offset = -1};
  snprintf(letters->dead_topic, sizeof letters->dead_topic, "%s.dlq", letters->topic);
  int status = m2sed_ctl_whole(ctl, M2SED_CTL_NEWEST, NEWEST_MAX, &letters->newest);
  if (!status)
    status = m2sed_ctl_whole(ctl, M2SED_CTL_LIMIT, INT64_MAX, &letters->limit);
  if (!status)
    status = m2sed_ctl_whole(ctl, M2SED_CTL_FROM, INT64_MAX, &letters->from);
  if (!status && m2sed_ctl_has(ctl, M2SED_CTL_JSON)) {
    letters->writer = m2se_json_writer_new(0);
    (replay ? m2se_json_put_object : m2se_json_put_array)(letters->writer, NULL);
  }
  if (!status)
    status = run(letters);
  m2se_kafka_free(letters->kafka);
  m2se_json_writer_free(letters->writer);
  m2sed_text_free(&letters->text);
  free(letters);
  return status;
}

int m2sed_ctl_dlq_list(struct m2sed_ctl *ctl) {
  return start(ctl, false);
}

int m2sed_ctl_dlq_replay(struct m2sed_ctl *ctl) {
  return start(ctl, true);
}
