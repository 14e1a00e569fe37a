/* sequence.lua once more, in C: what one event does to a stored sequence. */
#ifndef SIM_SEQUENCE_H
#define SIM_SEQUENCE_H

#include <stddef.h>
#include <stdint.h>

struct sim_words;

/* words: the key, then ARGV as in sequence.lua. Returns its outcome; *error is what it answers instead. */
int sim_sequence_apply(uint8_t *blob, uint32_t *size, uint32_t capacity, const struct sim_words *words,
                       const char **error);

#endif
