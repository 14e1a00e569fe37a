// An interaction as anybody may have written it: refused with a rule and a reason, or within the rules of
// ingest/validate.h. What is accepted is the same after it was encoded and decoded again.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ingest/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition) {
  if (!condition)
    abort();
}

static void check_text(struct m2se_bytes bytes) {
  require(bytes.data && bytes.data[bytes.size] == 0);
  if (bytes.size)
    require(m2se_validate_id(bytes.data, bytes.size, "", NULL) == 0);
}

static int equal(struct m2se_bytes a, struct m2se_bytes b) {
  return a.size == b.size && memcmp(a.data, b.data, a.size) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct m2se_arena arenas[2]; // taken once: libFuzzer comes back millions of times
  for (int i = 0; i < 2; i++)
    require(arenas[i].data || m2se_arena_new(&arenas[i], M2SE_INTERACTION_ARENA_BYTES) == 0);
  struct m2se_interaction first, again;
  struct m2se_refusal refusal = {.text = ""};
  int64_t record_time_ms = size % 2 ? 1700000000000 : -1;
  if (m2se_interaction_decode(&first, &arenas[0], data, size, record_time_ms, &refusal)) {
    require(refusal.rule < M2SE_RULE_COUNT_OF_ALL && refusal.text[0]);
    require(m2se_validate_text(refusal.text, strlen(refusal.text), "", NULL) == 0);
    return 0;
  }
  check_text(first.user_id);
  check_text(first.item_id);
  check_text(first.event_id);
  check_text(first.kind);
  require(first.user_id.size && first.item_id.size);
  require(first.event_time_ms >= 1 && first.event_time_ms <= M2SE_EVENT_TIME_MS_MAX);

  uint8_t packed[1024];
  size_t packed_size = m2se_interaction_encode(&first, packed, sizeof packed);
  require(packed_size <= sizeof packed);
  require(m2se_interaction_decode(&again, &arenas[1], packed, packed_size, -1, NULL) == 0);
  require(equal(first.user_id, again.user_id) && equal(first.item_id, again.item_id));
  require(equal(first.event_id, again.event_id) && equal(first.kind, again.kind));
  require(first.event_time_ms == again.event_time_ms);
  return 0;
}
