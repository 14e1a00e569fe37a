/* m2sectl features status: what the store of computed features holds, read beside the daemon. */
#include <string.h>
#include <sysexits.h>

#include "daemon/ctl/ctl.h"
#include "daemon/features/store.h"
#include "model/files/json.h"

enum { REASONS_MAX = 64, REASON_BYTES = 32 };

/* Refusals by the word that their reason begins with. */
struct tally {
  uint32_t count;
  struct {
    char name[REASON_BYTES];
    uint64_t refusals;
  } reasons[REASONS_MAX];
};

static void count_refusal(void *context, const char *reason, size_t size) {
  struct tally *tally = context;
  const char *colon = memchr(reason, ':', size);
  size_t length = colon ? (size_t)(colon - reason) : size;
  char name[REASON_BYTES] = "";
  memcpy(name, reason, length < REASON_BYTES ? length : REASON_BYTES - 1);
  uint32_t i = 0;
  while (i < tally->count && strcmp(tally->reasons[i].name, name) != 0)
    i++;
  if (i == REASONS_MAX)
    return;
  if (i == tally->count)
    memcpy(tally->reasons[tally->count++].name, name, sizeof name);
  tally->reasons[i].refusals++;
}

static int show_for_programs(const struct m2sed_store_counts *counts, const struct tally *tally) {
  struct m2se_json_writer *writer = m2se_json_writer_new(0);
  m2se_json_put_object(writer, NULL);
  m2se_json_put_int64(writer, "items", (int64_t)counts->items);
  m2se_json_put_int64(writer, "pending", (int64_t)counts->pending);
  m2se_json_put_int64(writer, "contents", (int64_t)counts->contents);
  m2se_json_put_int64(writer, "waiting", (int64_t)counts->waiting);
  m2se_json_put_int64(writer, "refused", (int64_t)counts->refused);
  m2se_json_put_int64(writer, "bytes", (int64_t)counts->bytes);
  m2se_json_put_object(writer, "refused_by_reason");
  for (uint32_t i = 0; i < tally->count; i++)
    m2se_json_put_int64(writer, tally->reasons[i].name, (int64_t)tally->reasons[i].refusals);
  m2se_json_put_end(writer);
  m2se_json_put_end(writer);
  return m2sed_ctl_show_json(writer);
}

static int show_for_people(const struct m2sed_store_counts *counts, const struct tally *tally) {
  struct m2sed_text text = {0};
  m2sed_text_add(&text, "items     %10llu   of which %llu wait for features\n",
                 (unsigned long long)counts->items, (unsigned long long)counts->pending);
  m2sed_text_add(&text, "contents  %10llu   texts and pictures; %llu to be computed, %llu refused\n",
                 (unsigned long long)counts->contents, (unsigned long long)counts->waiting,
                 (unsigned long long)counts->refused);
  m2sed_text_add(&text, "bytes     %10llu\n", (unsigned long long)counts->bytes);
  for (uint32_t i = 0; i < tally->count; i++)
    m2sed_text_add(&text, "refused   %10llu   %s\n", (unsigned long long)tally->reasons[i].refusals,
                   tally->reasons[i].name);
  int status = m2sed_ctl_show(&text);
  m2sed_text_free(&text);
  return status;
}

int m2sed_ctl_features_status(struct m2sed_ctl *ctl) {
  struct m2sed_store_options options = {.folder = ctl->config.features_store,
                                        .bytes_max = (uint64_t)ctl->config.features_store_bytes,
                                        .read_only = true};
  struct m2sed_store *store;
  struct m2sed_store_counts counts;
  struct tally tally = {0};
  struct m2se_error error = {0};
  if (m2sed_store_open(&store, &options, &error))
    return m2sed_ctl_fail_error(&error);
  int code = m2sed_store_count(store, &counts, &error);
  code = code ? code : m2sed_store_each_refusal(store, count_refusal, &tally, &error);
  m2sed_store_close(store);
  if (code)
    return m2sed_ctl_fail_error(&error);
  return m2sed_ctl_has(ctl, M2SED_CTL_JSON) ? show_for_programs(&counts, &tally)
                                            : show_for_people(&counts, &tally);
}
