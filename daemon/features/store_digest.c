#include <nettle/sha2.h>

#include "daemon/features/store.h"

void m2sed_store_digest(const struct m2sed_content *content, uint8_t digest[M2SED_DIGEST_BYTES]) {
  struct sha256_ctx state;
  uint8_t kind = (uint8_t)content->kind;
  sha256_init(&state);
  sha256_update(&state, 1, &kind);
  sha256_update(&state, content->size, content->bytes);
  sha256_digest(&state, M2SED_DIGEST_BYTES, digest);
}
