/* Examples whose item, or whole context, has no features yet: they wait here until the features come, or
 * until so many later events have been taken that nobody expects them any more. In the order of arrival; when
 * it is full the oldest one leaves. What it holds is a function of the calls. One thread at a time. */
#ifndef M2SED_PARKING_H
#define M2SED_PARKING_H

#include <stdbool.h>

#include "daemon/checkpoint.h"

struct m2sed_parking {
  uint32_t capacity, first, count;
  struct m2sed_example *ring; /* [capacity] */
};

/* capacity may be 0: whatever is added leaves at once. M2SE_ENOMEM. */
int m2sed_parking_init(struct m2sed_parking *parking, uint32_t capacity);
void m2sed_parking_deinit(struct m2sed_parking *parking);
/* Returns how many left for it: 0 or 1. */
uint32_t m2sed_parking_add(struct m2sed_parking *parking, const struct m2sed_example *example);
/* The oldest ones leave as long as their arrival lies more than `limit` before `now`. Returns how many. */
uint32_t m2sed_parking_expire(struct m2sed_parking *parking, uint64_t now, uint64_t limit);
/* Those that take() takes leave, from the oldest on. Returns how many. take() must not call us. */
uint32_t m2sed_parking_release(struct m2sed_parking *parking,
                               bool (*take)(void *arg, const struct m2sed_example *example), void *arg);
/* Into out [capacity], the oldest first. Returns how many. */
uint32_t m2sed_parking_copy(const struct m2sed_parking *parking, struct m2sed_example *out);

#endif
