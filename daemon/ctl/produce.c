/* m2sectl produce: lines of a file become records of a topic, on a schedule. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/produce_line.h"
#include "ingest/kafka.h"
#include "model/files/json.h"

enum {
  ASK_MS = 10000,     /* for the topic to be there */
  GIVE_UP_MS = 10000, /* after an interrupt: for what has been sent */
  POLL_EVERY = 256,   /* records */
  BAD_LINES_TOLD = 20
};
#define POLL_NS UINT64_C(100000000)

struct producer {
  const struct m2sed_ctl *ctl;
  const char *topic, *path;
  FILE *file;
  struct m2sed_line_codec codec;
  struct m2se_kafka *kafka;
  int32_t partition; /* -1: by the key */
  double rate;       /* records a second; 0: no limit */
  uint64_t skip, limit;
  bool quiet, terminal;

  uint64_t lines, sent, bad, acknowledged, failed;
  uint64_t begun_ns, told_ns;
  bool ended;        /* Kafka will do nothing any more */
  char trouble[512]; /* the newest thing that Kafka complained of */
};

static void complain(struct producer *producer, const char *text) {
  if (!strcmp(producer->trouble, text))
    return; /* it says so again and again while a broker is away */
  snprintf(producer->trouble, sizeof producer->trouble, "%s", text);
  m2sed_ctl_fail(0, "%sKafka: %s", producer->terminal ? "\r\033[K" : "", text);
}

static void on_delivered(void *arg, const struct m2se_kafka_delivery *delivery) {
  struct producer *producer = arg;
  producer->acknowledged += !delivery->code;
  producer->failed += delivery->code != 0;
  if (delivery->code)
    complain(producer, delivery->why);
}

static void on_error(void *arg, enum m2se_kafka_error_class class, const char *text) {
  struct producer *producer = arg;
  producer->ended |= class == M2SE_KAFKA_FATAL;
  complain(producer, text);
}

/* ---- the connection ---- */

static int connect_kafka(struct producer *producer) {
  const struct m2sed_config *config = &producer->ctl->config;
  struct m2se_kafka_property properties[M2SED_PROPERTIES_MAX];
  for (uint32_t i = 0; i < config->kafka_property_count; i++)
    properties[i] =
        (struct m2se_kafka_property){config->kafka_properties[i].name, config->kafka_properties[i].value};
  const struct m2se_kafka_settings settings = {.brokers = config->kafka_brokers,
                                               .client_id = "m2sectl",
                                               .ordered_producer = true,
                                               .properties = properties,
                                               .property_count = config->kafka_property_count};
  const struct m2se_kafka_callbacks callbacks = {
      .arg = producer, .delivered = on_delivered, .error = on_error};
  struct m2se_error error = {0};
  if (m2se_kafka_new(&producer->kafka, &settings, &callbacks, &error))
    return m2sed_ctl_fail(EX_CONFIG, "Kafka: %s", error.text);
  int partitions = m2se_kafka_query_ends(producer->kafka, producer->topic, NULL, 0, ASK_MS, &error);
  if (partitions < 0)
    return m2sed_ctl_fail(partitions == M2SE_EMISSING ? EX_NOINPUT : EX_UNAVAILABLE, "Kafka at %s: %s",
                          config->kafka_brokers, error.text);
  if (producer->partition >= partitions)
    return m2sed_ctl_fail(EX_USAGE, "partition: topic %s has %d", producer->topic, partitions);
  return 0;
}

/* ---- telling ---- */

static double seconds_since(uint64_t begun_ns) {
  return (double)(m2sed_ctl_monotonic_ns() - begun_ns) * 1e-9;
}

static void tell_progress(struct producer *producer) {
  uint64_t now_ns = m2sed_ctl_monotonic_ns();
  uint64_t pause_ns = producer->terminal ? UINT64_C(1000000000) : UINT64_C(10000000000);
  if (producer->quiet || now_ns - producer->told_ns < pause_ns)
    return;
  producer->told_ns = now_ns;
  struct m2sed_text text = {0};
  m2sed_text_add(&text, "%s", producer->terminal ? "\r\033[K" : "m2sectl: ");
  m2sed_text_add_count(&text, producer->acknowledged);
  m2sed_text_add(&text, " acknowledged, ");
  m2sed_text_add_count(&text, producer->sent - producer->acknowledged - producer->failed);
  m2sed_text_add(&text, " on their way, %.0f/s", (double)producer->sent / seconds_since(producer->begun_ns));
  m2sed_text_add(&text, "%s", producer->terminal ? "" : "\n");
  if (!text.failed)
    fputs(text.data, stderr);
  m2sed_text_free(&text);
}

static void tell_bad_line(struct producer *producer, const char *why) {
  producer->bad++;
  if (producer->bad <= BAD_LINES_TOLD)
    m2sed_ctl_fail(0, "%s%s:%" PRIu64 ": %s", producer->terminal ? "\r\033[K" : "", producer->path,
                   producer->lines, why);
  if (producer->bad == BAD_LINES_TOLD)
    m2sed_ctl_fail(0, "further bad lines are only counted");
}

static int show_summary(const struct producer *producer) {
  double seconds = seconds_since(producer->begun_ns);
  if (m2sed_ctl_has(producer->ctl, M2SED_CTL_JSON)) {
    struct m2se_json_writer *writer = m2se_json_writer_new(0);
    m2se_json_put_object(writer, NULL);
    m2se_json_put_text(writer, "topic", producer->topic);
    m2se_json_put_int64(writer, "lines", (int64_t)producer->lines);
    m2se_json_put_int64(writer, "acknowledged", (int64_t)producer->acknowledged);
    m2se_json_put_int64(writer, "failed", (int64_t)(producer->sent - producer->acknowledged));
    m2se_json_put_int64(writer, "bad", (int64_t)producer->bad);
    m2se_json_put_double(writer, "seconds", seconds);
    m2se_json_put_end(writer);
    return m2sed_ctl_show_json(writer);
  }
  struct m2sed_text text = {0};
  m2sed_text_add(&text, "%s: ", producer->topic);
  m2sed_text_add_count(&text, producer->acknowledged);
  m2sed_text_add(&text, " records acknowledged in %.1f s (%.0f/s), ", seconds,
                 (double)producer->acknowledged / seconds);
  m2sed_text_add_count(&text, producer->sent - producer->acknowledged);
  m2sed_text_add(&text, " failed, ");
  m2sed_text_add_count(&text, producer->bad);
  m2sed_text_add(&text, " bad lines\n");
  int status = m2sed_ctl_show(&text);
  m2sed_text_free(&text);
  return status;
}

/* ---- sending ---- */

static bool stopped(const struct producer *producer) {
  return producer->ended || m2sed_ctl_interrupted();
}

/* Until the next record is due: number i at begun + i / rate, so that no delay adds up. */
static void wait_for_turn(struct producer *producer) {
  if (producer->sent % POLL_EVERY == 0)
    m2se_kafka_poll(producer->kafka, 0, 0);
  if (producer->rate > 0) {
    uint64_t due_ns = producer->begun_ns + (uint64_t)((double)producer->sent / producer->rate * 1e9), now_ns;
    while (!stopped(producer) && (now_ns = m2sed_ctl_monotonic_ns()) < due_ns) {
      m2se_kafka_poll(producer->kafka, 0, 0);
      m2sed_ctl_sleep_until_ns(due_ns < now_ns + POLL_NS ? due_ns : now_ns + POLL_NS);
    }
  }
  tell_progress(producer);
}

/* 0 also for a record that is refused; else an exit status. */
static int send_record(struct producer *producer, const struct m2sed_line_record *record) {
  const struct m2se_kafka_message message = {.topic = producer->topic,
                                             .partition = producer->partition,
                                             .key = record->key,
                                             .key_size = record->key_size,
                                             .value = record->value,
                                             .value_size = record->value_size};
  struct m2se_error error = {0};
  int code = M2SE_ELIMIT;
  while (!stopped(producer) &&
         (code = m2se_kafka_produce(producer->kafka, &message, &error)) == M2SE_ELIMIT) {
    m2se_kafka_poll(producer->kafka, 0, 0); /* the queue is full: there is room once some are acknowledged */
    m2sed_ctl_sleep_until_ns(m2sed_ctl_monotonic_ns() + 1000000);
    tell_progress(producer);
  }
  if (code == M2SE_EINVAL || code == M2SE_ERANGE)
    tell_bad_line(producer, error.text);
  else if (code == M2SE_ELIMIT)
    producer->lines--; /* interrupted: whoever goes on later begins with this line */
  else if (code)
    return m2sed_ctl_fail(EX_IOERR, "%s", error.text);
  producer->sent += !code;
  return 0;
}

static int take_line(struct producer *producer, char *line, size_t size) {
  struct m2sed_line_record record;
  struct m2se_refusal refusal;
  while (size && (line[size - 1] == '\n' || line[size - 1] == '\r'))
    line[--size] = '\0';
  if (!line[strspn(line, " \t")] && strlen(line) == size)
    return 0;
  wait_for_turn(producer);
  int code = m2sed_line_convert(&producer->codec, line, size, m2sed_ctl_wall_ms(), &record, &refusal);
  if (code == M2SE_ENOMEM)
    return m2sed_ctl_fail(EX_OSERR, "out of memory");
  if (code) {
    tell_bad_line(producer, refusal.text);
    return 0;
  }
  return send_record(producer, &record);
}

static int send_lines(struct producer *producer) {
  char *line = NULL;
  size_t capacity = 0;
  int status = 0;
  uint64_t end =
      producer->limit < UINT64_MAX - producer->skip ? producer->skip + producer->limit : UINT64_MAX;
  while (!status && !stopped(producer) && producer->lines < end) {
    errno = 0;
    ssize_t size = getline(&line, &capacity, producer->file);
    if (size < 0) {
      if (!feof(producer->file) && errno != EINTR)
        status = m2sed_ctl_fail(EX_IOERR, "%s: %s", producer->path, strerror(errno));
      break;
    }
    if (producer->lines++ >= producer->skip)
      status = take_line(producer, line, (size_t)size);
  }
  free(line);
  return status;
}

/* Waits for what is on its way: for as long as librdkafka tries, or a little after an interrupt. */
static void finish(struct producer *producer) {
  uint64_t told_ns = 0;
  while (!producer->ended && !m2se_kafka_flush(producer->kafka, 100)) {
    tell_progress(producer);
    if (!m2sed_ctl_interrupted())
      continue;
    told_ns = told_ns ? told_ns : m2sed_ctl_monotonic_ns();
    if (seconds_since(told_ns) * 1000 > GIVE_UP_MS)
      break;
  }
  if (producer->terminal && producer->told_ns > producer->begun_ns)
    fputs("\r\033[K", stderr);
}

static int run(struct producer *producer) {
  int status = connect_kafka(producer);
  if (status)
    return status;
  producer->begun_ns = producer->told_ns = m2sed_ctl_monotonic_ns();
  status = send_lines(producer);
  finish(producer);
  int shown = show_summary(producer);
  if (status || shown)
    return status ? status : shown;
  if (producer->sent != producer->acknowledged)
    return m2sed_ctl_fail(EX_IOERR, "%" PRIu64 " records have not reached Kafka",
                          producer->sent - producer->acknowledged);
  if (m2sed_ctl_interrupted())
    return m2sed_ctl_fail(EX_TEMPFAIL, "interrupted after line %" PRIu64, producer->lines);
  return producer->bad ? EX_DATAERR : 0;
}

/* ---- the commands ---- */

static int read_options(struct producer *producer, bool items) {
  const struct m2sed_ctl *ctl = producer->ctl;
  const char *format = ctl->values[M2SED_CTL_FORMAT];
  uint64_t partition = UINT64_MAX;
  producer->limit = UINT64_MAX;
  producer->codec.items = items;
  producer->codec.tsv = format && !strcmp(format, "tsv");
  producer->codec.now = m2sed_ctl_has(ctl, M2SED_CTL_NOW);
  producer->codec.dim = (uint32_t)ctl->config.model_feature_dim;
  if (format && strcmp(format, "jsonl") != 0 && (items || !producer->codec.tsv))
    return m2sed_ctl_fail(EX_USAGE, "format: must be jsonl%s, not '%.80s'", items ? "" : " or tsv", format);
  int status = m2sed_ctl_real(ctl, M2SED_CTL_RATE, 1e-3, 1e9, &producer->rate);
  if (!status)
    status = m2sed_ctl_whole(ctl, M2SED_CTL_SKIP, INT64_MAX, &producer->skip);
  if (!status)
    status = m2sed_ctl_whole(ctl, M2SED_CTL_LIMIT, INT64_MAX, &producer->limit);
  if (!status)
    status = m2sed_ctl_whole(ctl, M2SED_CTL_PARTITION, INT32_MAX, &partition);
  producer->partition = partition == UINT64_MAX ? -1 : (int32_t)partition;
  return status;
}

static int produce(const struct m2sed_ctl *ctl, const char *topic, bool items) {
  struct producer producer = {.ctl = ctl,
                              .topic = topic,
                              .path = ctl->arguments[0],
                              .quiet = m2sed_ctl_has(ctl, M2SED_CTL_QUIET),
                              .terminal = isatty(STDERR_FILENO)};
  int status = read_options(&producer, items);
  if (status)
    return status;
  bool input = !strcmp(producer.path, "-");
  producer.file = input ? stdin : fopen(producer.path, "re");
  if (!producer.file)
    return m2sed_ctl_fail(EX_NOINPUT, "%s: %s", producer.path, strerror(errno));
  m2sed_ctl_catch_interrupts();
  status =
      m2sed_line_codec_init(&producer.codec) ? m2sed_ctl_fail(EX_OSERR, "out of memory") : run(&producer);
  m2se_kafka_free(producer.kafka);
  m2sed_line_codec_free(&producer.codec);
  if (!input)
    fclose(producer.file);
  return status;
}

int m2sed_ctl_produce_interactions(struct m2sed_ctl *ctl) {
  return produce(ctl, ctl->config.kafka_interactions, false);
}

int m2sed_ctl_produce_items(struct m2sed_ctl *ctl) {
  return produce(ctl, ctl->config.kafka_items, true);
}
