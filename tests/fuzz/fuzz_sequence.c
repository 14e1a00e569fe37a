// The blob of a sequence, as anything may have written it: accepted or refused, and what is accepted keeps
// the rules.
#include <stdint.h>
#include <stdlib.h>

#include "ingest/sequence.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition) {
  if (!condition)
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct m2se_sequence sequence;
  struct m2se_error error = {0};
  if (m2se_sequence_parse(&sequence, data, size, &error)) {
    require(error.code == M2SE_EFORMAT && error.text[0] && sequence.entry_count == 0);
    return 0;
  }
  uint32_t letters = 0;
  for (uint32_t i = 0; i < sequence.entry_count; i++) {
    const struct m2se_sequence_entry *entry = &sequence.entries[i];
    require(entry->item_id_size >= 1 && entry->item_id_size <= M2SE_ID_BYTES_MAX && entry->partition >= 0);
    require(entry->item_id > (const char *)data &&
            entry->item_id + entry->item_id_size <= (const char *)data + size);
    for (uint32_t j = 0; j < entry->item_id_size; j++)
      letters += (uint8_t)entry->item_id[j];
    require(m2se_sequence_find(&sequence, entry->partition, entry->position) == i);
    struct m2se_sequence_span span = m2se_sequence_context(&sequence, entry->partition, entry->position, 7);
    require(span.first + span.count == i && span.count == (i < 7 ? i : 7));
  }
  struct m2se_sequence_span latest = m2se_sequence_latest(&sequence, 7);
  require(latest.first + latest.count == sequence.entry_count);
  return letters == UINT32_MAX; // uses every byte of every id
}
