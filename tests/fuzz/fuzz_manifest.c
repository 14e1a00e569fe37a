// MANIFEST.json with a checksum that holds: refused with a reason, or read within the stated ranges.
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/checkpoint_files.h"
#include "daemon/learning.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct m2sed_checkpoint_state *state, const struct m2sed_file_sum *sums) {
  assert(state->lineage[0] && memchr(state->lineage, 0, sizeof state->lineage));
  for (uint32_t i = 0; i < state->position_count; i++) {
    int32_t partition = state->positions[i].partition;
    assert(partition >= 0 && partition < M2SED_PARTITIONS_MAX);
    assert(i == 0 || partition > state->positions[i - 1].partition);
  }
  for (int i = 0; i < M2SED_CHECKPOINT_FILES; i++) {
    assert(memchr(sums[i].xxh3_128, 0, sizeof sums[i].xxh3_128));
  }
}

// The input is what stands before the checksum; without one, the text as it is must be refused.
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct m2sed_file_sum sums[M2SED_CHECKPOINT_FILES], sum;
  for (int sealed = 0; sealed <= 1; sealed++) {
    char *text = malloc(size + 128);
    size_t length = size;
    assert(text);
    memcpy(text, data, size);
    if (sealed) {
      m2sed_memory_sum(text, size, &sum);
      length += (size_t)snprintf(text + size, 128, "\"checksum\": \"%s\"\n}\n", sum.xxh3_128);
    }
    struct m2sed_checkpoint_state *state = calloc(1, sizeof *state);
    struct m2se_error error = {0};
    assert(state);
    int code = m2sed_manifest_parse(text, length, state, sums, &error);
    if (code == 0) {
      assert(sealed || size > 100);
      check(state, sums);
    } else {
      assert(error.code == code && error.text[0]);
    }
    m2sed_checkpoint_state_free(state);
    free(text);
  }
  return 0;
}
