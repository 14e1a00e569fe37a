/* The group: partitions that it gives and takes, and commits. It is answered at once, with an assignment of
 * nothing: partitions join it one by one as they are started, so that a slow question holds up no other
 * member.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <librdkafka/rdkafka.h>

#include "ingest/kafka_parts.h"

void m2se_kafka_drop(struct m2se_kafka *kafka, const struct m2se_kafka_reader *reader) {
  bool lost = reader == &kafka->readers[M2SE_KAFKA_GROUP_READER]; /* or the group would have revoked it */
  for (int topic = 0; topic < M2SE_KAFKA_TOPICS; topic++)
    for (int32_t i = 0; i < kafka->topics[topic].partition_count; i++)
      if (kafka->topics[topic].reader == reader && kafka->topics[topic].partitions[i])
        m2se_kafka_partition_drop(kafka, kafka->topics[topic].partitions[i], lost);
}

static void on_assigned(struct m2se_kafka *kafka, rd_kafka_t *handle,
                        const rd_kafka_topic_partition_list_t *list) {
  rd_kafka_topic_partition_list_t *nothing = rd_kafka_topic_partition_list_new(0);
  m2se_kafka_report_error(kafka, handle, rd_kafka_incremental_assign(handle, nothing), "joining the group");
  rd_kafka_topic_partition_list_destroy(nothing);
  for (int topic = 0; topic < M2SE_KAFKA_TOPICS && !kafka->closing; topic++)
    if (kafka->topics[topic].reader == &kafka->readers[M2SE_KAFKA_GROUP_READER])
      m2se_kafka_take_partitions(kafka, topic, list);
}

static void on_revoked(struct m2se_kafka *kafka, rd_kafka_t *handle,
                       const rd_kafka_topic_partition_list_t *list) {
  bool lost = rd_kafka_assignment_lost(handle);
  rd_kafka_topic_partition_list_t *assigned = rd_kafka_topic_partition_list_new(list->cnt);
  for (int i = 0; i < list->cnt; i++) {
    const char *name = list->elems[i].topic;
    enum m2se_kafka_topic topic =
        m2se_kafka_topic_named(kafka, &kafka->readers[M2SE_KAFKA_GROUP_READER], name);
    struct m2se_kafka_partition *partition =
        topic < M2SE_KAFKA_TOPICS ? m2se_kafka_partition_of(kafka, topic, list->elems[i].partition) : NULL;
    if (!partition)
      continue;
    if (partition->assigned)
      rd_kafka_topic_partition_list_add(assigned, name, partition->number);
    m2se_kafka_partition_drop(kafka, partition, lost);
  }
  m2se_kafka_report_error(kafka, handle, rd_kafka_incremental_unassign(handle, assigned),
                          "giving partitions back");
  rd_kafka_topic_partition_list_destroy(assigned);
}

static void on_rebalance(rd_kafka_t *handle, rd_kafka_resp_err_t code, rd_kafka_topic_partition_list_t *list,
                         void *opaque) {
  struct m2se_kafka *kafka = opaque;
  if (code == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS)
    on_assigned(kafka, handle, list);
  else if (code == RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS)
    on_revoked(kafka, handle, list);
  else {
    m2se_kafka_report(kafka, handle, code, "rebalance: %s", rd_kafka_err2str(code));
    rd_kafka_assign(handle, NULL);
  }
}

/* ---- commits ----
 * librdkafka before 2.10 takes the refusal of a commit that it sent in the middle of a rebalance for the loss
 * of all its partitions. It says in its statistics alone whether it is in one, so a commit waits for the next
 * statistics that do not. */

void m2se_kafka_commit(struct m2se_kafka *kafka, const struct m2se_kafka_offset *offsets, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    assert(kafka->topics[offsets[i].topic].reader == &kafka->readers[M2SE_KAFKA_GROUP_READER]);
    struct m2se_kafka_partition *partition =
        m2se_kafka_partition_of(kafka, offsets[i].topic, offsets[i].partition);
    if (!partition || !partition->ours)
      continue;
    partition->commit = offsets[i].offset;
    partition->commit_waits = kafka->commits_wait = true;
  }
}

void m2se_kafka_send_commits(struct m2se_kafka *kafka) {
  rd_kafka_t *handle = kafka->readers[M2SE_KAFKA_GROUP_READER].handle;
  if (!handle || !kafka->commits_wait)
    return;
  kafka->commits_wait = false;
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
  for (int topic = 0; topic < M2SE_KAFKA_TOPICS; topic++)
    for (int32_t i = 0; i < kafka->topics[topic].partition_count; i++) {
      struct m2se_kafka_partition *partition = kafka->topics[topic].partitions[i];
      if (!partition || !partition->commit_waits)
        continue;
      partition->commit_waits = false;
      rd_kafka_topic_partition_list_add(list, kafka->topics[topic].name, i)->offset = partition->commit;
    }
  rd_kafka_resp_err_t code = list->cnt ? rd_kafka_commit(handle, list, 1) : 0;
  if (code)
    m2se_kafka_report(kafka, handle, code, "commit: %s", rd_kafka_err2str(code));
  rd_kafka_topic_partition_list_destroy(list);
}

/* After a lost connection a commit must wait until the group has noticed what it did to our membership: with
 * an id that a static member (group.instance.id) had before it came back, a commit ends the client for good.
 */
bool m2se_kafka_group_is_steady(const char *statistics) {
  enum { NOTICED_US = 2000000 };
  static const char up[] = "\"state\":\"UP\", \"stateage\":";
  const char *coordinator = strstr(statistics, "\"GroupCoordinator\":");
  const char *connection = coordinator ? strstr(coordinator, "\"state\":") : NULL;
  const char *group = strstr(statistics, "\"cgrp\":");
  return connection && !strncmp(connection, up, strlen(up)) &&
         strtoll(connection + strlen(up), NULL, 10) >= NOTICED_US && group &&
         strstr(group, "\"state\": \"up\"") && strstr(group, "\"join_state\": \"steady\"");
}

static int on_statistics(rd_kafka_t *handle, char *json, size_t size, void *opaque) {
  (void)handle;
  (void)size;
  if (m2se_kafka_group_is_steady(json))
    m2se_kafka_send_commits(opaque);
  return 0; /* librdkafka frees the text */
}

static void on_commit(rd_kafka_t *handle, rd_kafka_resp_err_t code, rd_kafka_topic_partition_list_t *list,
                      void *opaque) {
  (void)list;
  if (code && code != RD_KAFKA_RESP_ERR__NO_OFFSET)
    m2se_kafka_report(opaque, handle, code, "commit: %s", rd_kafka_err2str(code));
}

void m2se_kafka_set_group_callbacks(rd_kafka_conf_t *conf) {
  rd_kafka_conf_set_rebalance_cb(conf, on_rebalance);
  rd_kafka_conf_set_offset_commit_cb(conf, on_commit);
  rd_kafka_conf_set_stats_cb(conf, on_statistics);
}

int m2se_kafka_subscribe(struct m2se_kafka *kafka, struct m2se_error *error) {
  struct m2se_kafka_reader *group = &kafka->readers[M2SE_KAFKA_GROUP_READER];
  if (!group->handle)
    return 0;
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(2);
  for (int i = 0; i < M2SE_KAFKA_TOPICS; i++)
    if (kafka->topics[i].reader == group && (i != M2SE_KAFKA_ERASURES || kafka->erasures_there))
      rd_kafka_topic_partition_list_add(list, kafka->topics[i].name, RD_KAFKA_PARTITION_UA);
  rd_kafka_resp_err_t code = rd_kafka_subscribe(group->handle, list);
  rd_kafka_topic_partition_list_destroy(list);
  return code ? m2se_error_set(error, M2SE_EINVAL, "subscribing: %s", rd_kafka_err2str(code)) : 0;
}
