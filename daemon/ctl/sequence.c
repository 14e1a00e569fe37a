/* m2sectl sequence: what a user looked at. */
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/titles.h"
#include "daemon/ctl/user.h"
#include "daemon/positions.h"
#include "model/files/json.h"

struct shown {
  const char *user;
  const struct m2se_sequence_entry *entries; /* oldest first */
  struct m2sed_title *titles;                /* as many */
  uint32_t count;
};

static int show_json(const struct shown *shown) {
  struct m2se_json_writer *writer = m2se_json_writer_new(0);
  m2se_json_put_object(writer, NULL);
  m2se_json_put_text(writer, "user", shown->user);
  m2se_json_put_array(writer, "items");
  for (uint32_t i = 0; i < shown->count; i++) {
    const struct m2se_sequence_entry *entry = &shown->entries[i];
    m2se_json_put_object(writer, NULL);
    m2se_json_put_string(writer, "item_id", entry->item_id, entry->item_id_size);
    m2se_json_put_int64(writer, "event_time_ms", entry->event_time_ms);
    m2se_json_put_int64(writer, "partition", entry->partition);
    m2se_json_put_int64(writer, "offset", (int64_t)(entry->position & M2SED_OFFSET_MASK));
    m2se_json_put_int64(writer, "log_epoch", (int64_t)(entry->position >> M2SED_EPOCH_BITS));
    if (shown->titles[i].title)
      m2se_json_put_text(writer, "title", shown->titles[i].title);
    m2se_json_put_end(writer);
  }
  m2se_json_put_end(writer);
  m2se_json_put_end(writer);
  return m2sed_ctl_show_json(writer);
}

static int show_table(const struct shown *shown) {
  struct m2sed_text text = {0};
  m2sed_text_add(&text, "%u items of user ", shown->count);
  m2sed_text_add_foreign(&text, shown->user, strlen(shown->user));
  m2sed_text_add(&text, ", oldest first\n");
  if (shown->count)
    m2sed_text_add(&text, "%-21s %9s %12s  %s\n", "event time", "partition", "offset", "item");
  for (uint32_t i = 0; i < shown->count; i++) {
    const struct m2se_sequence_entry *entry = &shown->entries[i];
    const char *title = shown->titles[i].title;
    m2sed_text_add_time(&text, entry->event_time_ms);
    m2sed_text_add(&text, "  %9d %12llu  ", entry->partition,
                   (unsigned long long)(entry->position & M2SED_OFFSET_MASK));
    m2sed_text_add_foreign(&text, entry->item_id, entry->item_id_size);
    if (title) {
      m2sed_text_add(&text, "  ");
      m2sed_text_add_foreign(&text, title, strlen(title));
    }
    m2sed_text_add(&text, "\n");
  }
  int status = m2sed_ctl_show(&text);
  m2sed_text_free(&text);
  return status;
}

static int show(const struct m2sed_ctl *ctl, const struct m2se_sequence *sequence) {
  struct m2sed_title titles[M2SE_SEQUENCE_KEEP_MAX] = {0};
  struct m2se_error error = {0};
  struct m2se_sequence_span span = m2se_sequence_latest(sequence, (uint32_t)ctl->config.sequence_keep);
  const struct shown shown = {.user = ctl->arguments[0],
                              .entries = sequence->entries + span.first,
                              .titles = titles,
                              .count = span.count};
  for (uint32_t i = 0; i < shown.count; i++)
    titles[i] =
        (struct m2sed_title){.id = shown.entries[i].item_id, .id_size = shown.entries[i].item_id_size};
  const char *file = ctl->values[M2SED_CTL_TITLES];
  int code = file ? m2sed_titles_read(file, titles, shown.count, &error) : 0;
  int status = code                                 ? m2sed_ctl_fail_error(&error)
               : m2sed_ctl_has(ctl, M2SED_CTL_JSON) ? show_json(&shown)
                                                    : show_table(&shown);
  m2sed_titles_free(titles, shown.count);
  return status;
}

int m2sed_ctl_sequence(struct m2sed_ctl *ctl) {
  static struct m2sed_user_sequence user;
  struct m2sed_ask *ask;
  struct m2se_error error = {0};
  int status = m2sed_user_check(ctl->arguments[0]);
  if (status)
    return status;
  if (m2sed_ask_open(&ask, &ctl->config, &error))
    return m2sed_ctl_fail_error(&error);
  if (m2sed_user_sequence_read(&user, ask, &ctl->config, ctl->arguments[0]))
    status = m2sed_ctl_fail(user.error.code == M2SE_EIO ? EX_UNAVAILABLE : EX_DATAERR, "%s", user.error.text);
  else
    status = show(ctl, &user.sequence);
  m2sed_ask_close(ask);
  m2sed_user_sequence_free(&user);
  return status;
}
