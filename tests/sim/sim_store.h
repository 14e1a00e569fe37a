/* The server behind the fake of Redis: the commands and scripts that the daemon sends, on sim->redis. */
#ifndef SIM_STORE_H
#define SIM_STORE_H

#include "ingest/redis.h"

enum { SIM_WORDS_MAX = 16 };

struct sim_word {
  const char *bytes;
  size_t size;
};
struct sim_words {
  struct sim_word words[SIM_WORDS_MAX];
  uint32_t count;
  char *memory; /* that they lie in */
};
void sim_words_copy(struct sim_words *words, const struct m2se_redis_argument *arguments, uint32_t count);

struct m2se_redis_reply {
  enum m2se_redis_type type;
  int64_t integer;
  size_t size, count;
  char *bytes;
  struct m2se_redis_reply **elements;
};
void sim_reply_free(struct m2se_redis_reply *reply); /* NULL is allowed */

struct m2se_redis_reply *sim_store_command(const struct sim_words *words);
struct m2se_redis_reply *sim_store_script(const char *script, const struct sim_words *words);
/* The daemon has heard a reply. */
void sim_store_answered(const char *script, const struct sim_words *words,
                        const struct m2se_redis_reply *reply);
/* At random: remembers the data as of now, or goes back to what it remembered, or loses everything. */
bool sim_store_maybe_crash(void);
/* A string or a field of a hash; NULL: not there. */
const struct sim_field *sim_store_find(const char *key, const char *field);

#endif
