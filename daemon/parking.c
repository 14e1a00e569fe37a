#include "daemon/parking.h"

#include <stdlib.h>

int m2sed_parking_init(struct m2sed_parking *parking, uint32_t capacity) {
  *parking = (struct m2sed_parking){.capacity = capacity};
  if (capacity > 0) {
    parking->ring = calloc(capacity, sizeof *parking->ring);
    if (parking->ring == NULL) {
      return M2SE_ENOMEM;
    }
  }
  return 0;
}

void m2sed_parking_deinit(struct m2sed_parking *parking) {
  free(parking->ring);
  *parking = (struct m2sed_parking){0};
}

static struct m2sed_example *place(const struct m2sed_parking *parking, uint32_t number) {
  return &parking->ring[((uint64_t)parking->first + number) % parking->capacity];
}

static void drop_oldest(struct m2sed_parking *parking) {
  parking->first = (parking->first + 1) % parking->capacity;
  parking->count--;
}

uint32_t m2sed_parking_add(struct m2sed_parking *parking, const struct m2sed_example *example) {
  if (parking->capacity == 0) {
    return 1;
  }
  uint32_t left = parking->count == parking->capacity;
  if (left) {
    drop_oldest(parking);
  }
  *place(parking, parking->count++) = *example;
  return left;
}

uint32_t m2sed_parking_expire(struct m2sed_parking *parking, uint64_t now, uint64_t limit) {
  uint32_t left = 0;
  while (parking->count > 0 && now - place(parking, 0)->arrival > limit) {
    drop_oldest(parking);
    left++;
  }
  return left;
}

uint32_t m2sed_parking_release(struct m2sed_parking *parking,
                               bool (*take)(void *arg, const struct m2sed_example *example), void *arg) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < parking->count; i++) {
    const struct m2sed_example *example = place(parking, i);
    if (!take(arg, example)) {
      *place(parking, kept++) = *example;
    }
  }
  uint32_t left = parking->count - kept;
  parking->count = kept;
  return left;
}

uint32_t m2sed_parking_copy(const struct m2sed_parking *parking, struct m2sed_example *out) {
  for (uint32_t i = 0; i < parking->count; i++) {
    out[i] = *place(parking, i);
  }
  return parking->count;
}
