#include "daemon/outbox.h"

#include <stdlib.h>
#include <string.h>

#include "model/error.h"

void m2sed_outbox_init(struct m2sed_outbox *outbox, struct m2sed_ring *ring, size_t message_bytes) {
  *outbox = (struct m2sed_outbox){.ring = ring, .message_bytes = message_bytes};
}

void m2sed_outbox_free(struct m2sed_outbox *outbox) {
  free(outbox->messages);
  *outbox = (struct m2sed_outbox){0};
}

static char *place(const struct m2sed_outbox *outbox, uint32_t index) {
  return outbox->messages + (size_t)((outbox->first + index) % outbox->capacity) * outbox->message_bytes;
}

static int grow(struct m2sed_outbox *outbox) {
  uint32_t capacity = outbox->capacity ? 2 * outbox->capacity : 64;
  char *messages = malloc(capacity * outbox->message_bytes);
  if (!messages)
    return M2SE_ENOMEM;
  for (uint32_t i = 0; i < outbox->count; i++)
    memcpy(messages + i * outbox->message_bytes, place(outbox, i), outbox->message_bytes);
  free(outbox->messages);
  outbox->messages = messages;
  outbox->capacity = capacity;
  outbox->first = 0;
  return 0;
}

bool m2sed_outbox_flush(struct m2sed_outbox *outbox) {
  while (outbox->count) {
    void *slot = m2sed_ring_claim(outbox->ring);
    if (!slot)
      return false;
    memcpy(slot, place(outbox, 0), outbox->message_bytes);
    m2sed_ring_publish(outbox->ring);
    outbox->first = (outbox->first + 1) % outbox->capacity;
    outbox->count--;
  }
  return true;
}

int m2sed_outbox_put(struct m2sed_outbox *outbox, const void *message) {
  void *slot = m2sed_outbox_flush(outbox) ? m2sed_ring_claim(outbox->ring) : NULL;
  if (slot) {
    memcpy(slot, message, outbox->message_bytes);
    m2sed_ring_publish(outbox->ring);
    return 0;
  }
  if (outbox->count == outbox->capacity && grow(outbox))
    return M2SE_ENOMEM;
  outbox->count++;
  memcpy(place(outbox, outbox->count - 1), message, outbox->message_bytes);
  return 0;
}
