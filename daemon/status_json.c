#include "daemon/status_json.h"

#include <inttypes.h>
#include <stdio.h>

#include "model/files/json.h"

static void put_int64(struct m2se_json_writer *writer, const char *key, int64_t number) {
  char decimal[24];
  snprintf(decimal, sizeof decimal, "%" PRId64, number);
  m2se_json_put_text(writer, key, decimal);
}

static void put_string(struct m2se_json_writer *writer, const char *key, const char *string) {
  m2se_json_put_text(writer, key, string ? string : "");
}

/* protobuf's type -> what writes it */
#define PUT_uint64 m2se_json_put_decimal
#define PUT_int64 put_int64
#define PUT_uint32 m2se_json_put_int64
#define PUT_int32 m2se_json_put_int64
#define PUT_double m2se_json_put_double
#define PUT_bool m2se_json_put_bool
#define PUT_string put_string
#define PUT(type, name) PUT_##type(writer, #name, from->name);

#define PUT_MESSAGE(name, LIST)                                                                              \
  static void put_##name(struct m2se_json_writer *writer, const struct m2se_status_##name *from) {           \
    LIST(PUT)                                                                                                \
  }
PUT_MESSAGE(partition, M2SE_STATUS_PARTITION)
PUT_MESSAGE(refusals, M2SE_STATUS_REFUSALS)
PUT_MESSAGE(events, M2SE_STATUS_EVENTS)
PUT_MESSAGE(training, M2SE_STATUS_TRAINING)
PUT_MESSAGE(reservoir, M2SE_STATUS_RESERVOIR)
PUT_MESSAGE(serving, M2SE_STATUS_SERVING)
PUT_MESSAGE(metrics, M2SE_STATUS_METRICS)
PUT_MESSAGE(freshness, M2SE_STATUS_FRESHNESS)
PUT_MESSAGE(redis, M2SE_STATUS_REDIS)
PUT_MESSAGE(kafka, M2SE_STATUS_KAFKA)
PUT_MESSAGE(checkpoint, M2SE_STATUS_CHECKPOINT)
PUT_MESSAGE(catalogue, M2SE_STATUS_CATALOGUE)
PUT_MESSAGE(process, M2SE_STATUS_PROCESS)
PUT_MESSAGE(lease, M2SE_STATUS_LEASE)
PUT_MESSAGE(features, M2SE_STATUS_FEATURES)

static void put_lists(struct m2se_json_writer *writer, const struct m2se_status *status) {
  m2se_json_put_array(writer, "reasons");
  for (uint32_t i = 0; i < status->reason_count; i++)
    m2se_json_put_text(writer, NULL, status->reasons[i]);
  m2se_json_put_end(writer);
  m2se_json_put_array(writer, "partitions");
  for (uint32_t i = 0; i < status->partition_count; i++) {
    m2se_json_put_object(writer, NULL);
    put_partition(writer, &status->partitions[i]);
    m2se_json_put_end(writer);
  }
  m2se_json_put_end(writer);
  m2se_json_put_array(writer, "freshness");
  for (uint32_t i = 0; i < status->freshness_count; i++) {
    const struct m2se_status_freshness *stage = &status->freshness[i];
    m2se_json_put_object(writer, NULL);
    put_freshness(writer, stage);
    m2se_json_put_array(writer, "bound_ms");
    for (uint32_t k = 0; k < stage->bound_count; k++)
      m2se_json_put_double(writer, NULL, stage->bound_ms[k]);
    m2se_json_put_end(writer);
    m2se_json_put_array(writer, "count");
    for (uint32_t k = 0; stage->count && k <= stage->bound_count; k++) /* NULL: no histogram came */
      m2se_json_put_decimal(writer, NULL, stage->count[k]);
    m2se_json_put_end(writer);
    m2se_json_put_end(writer);
  }
  m2se_json_put_end(writer);
}

static void put_prequential(struct m2se_json_writer *writer, const struct m2se_status_prequential *from) {
  m2se_json_put_object(writer, "prequential");
  m2se_json_put_decimal(writer, "events", from->events);
  m2se_json_put_decimal(writer, "skipped", from->skipped);
#define PUT_METRICS(name)                                                                                    \
  m2se_json_put_object(writer, #name);                                                                       \
  put_metrics(writer, &from->name);                                                                          \
  m2se_json_put_end(writer);
  M2SE_STATUS_PREQUENTIAL(PUT_METRICS)
#undef PUT_METRICS
  m2se_json_put_end(writer);
}

void m2sed_status_put_json(struct m2se_json_writer *writer, const struct m2se_status *status) {
  const struct m2se_status *from = status;
  M2SE_STATUS_STATUS(PUT)
  m2se_json_put_text(writer, "state", m2se_state_name(status->state));
  put_lists(writer, status);
  m2se_json_put_object(writer, "events");
  put_events(writer, &status->events);
  m2se_json_put_array(writer, "refused");
  for (uint32_t i = 0; i < status->events.refused_count; i++) {
    m2se_json_put_object(writer, NULL);
    put_refusals(writer, &status->events.refused[i]);
    m2se_json_put_end(writer);
  }
  m2se_json_put_end(writer);
  m2se_json_put_end(writer);
  put_prequential(writer, &status->prequential);
#define PUT_PART(name)                                                                                       \
  m2se_json_put_object(writer, #name);                                                                       \
  put_##name(writer, &status->name);                                                                         \
  m2se_json_put_end(writer);
  PUT_PART(training)
  PUT_PART(reservoir)
  PUT_PART(serving)
  PUT_PART(redis)
  PUT_PART(kafka)
  PUT_PART(checkpoint)
  PUT_PART(catalogue)
  PUT_PART(process)
  PUT_PART(lease)
  PUT_PART(features)
#undef PUT_PART
}
