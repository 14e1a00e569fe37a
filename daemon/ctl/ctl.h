/* What the commands of m2sectl share: the command line as it was understood, the settings, ways to say
 * things.
 *
 * DESIGN. One table (main.c) lists the commands with the options that each takes; one list (below) the
 * options. Parsing, checks and every --help come from these. A command is a function that gets a struct
 * m2sed_ctl and returns an exit status of sysexits.h. What goes to standard output is built as a text and
 * written whole; complaints go to standard error, one line each.
 */
#ifndef M2SED_CTL_H
#define M2SED_CTL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/config.h"
#include "daemon/text.h"
#include "model/error.h"

/* X(enum, name, name of its value or NULL, help). Those of one letter are written with one '-'. */
#define M2SED_CTL_OPTIONS(X)                                                                                 \
  X(CONFIG, "config", "FILE", "the daemon's settings: they say where everything is")                         \
  X(EMBEDDED, "embedded", NULL, "the daemon runs with --embedded: look for its servers in daemon.state_dir") \
  X(JSON, "json", NULL, "for programs: JSON on standard output")                                             \
  X(HELP, "help", NULL, "say this")                                                                          \
  X(WATCH, "watch", NULL, "go on, once a second, until Ctrl-C")                                              \
  X(COUNT, "k", "N", "how many, 1 to 1000 (10)")                                                             \
  X(INCLUDE_SEEN, "include-seen", NULL, "leave the items of the user's sequence in, whatever the settings")  \
  X(TITLES, "titles", "FILE", "JSON lines with item_id and title: names beside the ids")                     \
  X(TIMEOUT, "timeout", "SECONDS", "how long to wait (60)")                                                  \
  X(FORMAT, "format", "FORMAT",                                                                              \
    "jsonl (the default): an object a line with the fields of proto/m2se.proto; "                            \
    "tsv: user, item, event time in ms, and, if wanted, event id and kind")                                  \
  X(RATE, "rate", "N", "records a second, on a fixed schedule (as fast as possible)")                        \
  X(SKIP, "skip", "N", "leave the first N lines out")                                                        \
  X(LIMIT, "limit", "N", "stop after N lines, or records")                                                   \
  X(NOW, "now", NULL, "event_time_ms is the time of sending, whatever the line says")                        \
  X(PARTITION, "partition", "N", "all into this partition, instead of by the key")                           \
  X(PARTITIONS, "partitions", "N", "of the interactions (as the broker does by default)")                    \
  X(REPLICATION, "replication", "N", "copies of each topic (as the broker does by default)")                 \
  X(QUIET, "quiet", NULL, "no progress on standard error")                                                   \
  X(NEWEST, "n", "N", "how many: the newest of each partition (20), the best words (15)")                    \
  X(RULE, "rule", "RULE", "only what broke this rule (time, id, format, ...)")                               \
  X(FROM, "from", "OFFSET", "begin with this offset of the dead letters, in each of their partitions")       \
  X(SAMPLE, "sample", "N", "only the first N keys of each kind that Redis names")                            \
  X(YES, "yes", NULL, "do it")                                                                               \
  X(DRY_RUN, "dry-run", NULL, "only say what would be done")                                                 \
  X(MODEL, "model", "DIR", "the folder of a BERT or CLIP model, as Hugging Face lays it out")                \
  X(JSONL, "jsonl", NULL,                                                                                    \
    "standard input has a JSON object a line, {\"text\": ...}; an object a line answers")                    \
  X(MAX, "max", "N", "cut a text to N ids, the first and the last included (as the model's folder says)")    \
  X(POOLING, "pooling", "HOW", "mean of all tokens, or cls: the first (as the model's folder says)")         \
  X(NO_NORMALIZE, "no-normalize", NULL, "vectors as the model gives them, not of length 1")                  \
  X(PIXEL_VALUES, "pixel-values", "FILE",                                                                    \
    "safetensors with pixel_values F32 [n,3,S,S]: ready pictures, instead of files")                         \
  X(WORDS, "words", "FILE", "the dictionary, one word a line")                                               \
  X(TEMPLATES, "templates", "TEXT|TEXT...", "up to three, with {} for the word (the word alone)")

enum m2sed_ctl_option {
#define M2SED_CTL_OPTION_ENUM(option, name, value, help) M2SED_CTL_##option,
  M2SED_CTL_OPTIONS(M2SED_CTL_OPTION_ENUM)
#undef M2SED_CTL_OPTION_ENUM
      M2SED_CTL_OPTION_COUNT
};

struct m2sed_ctl {
  const struct m2sed_command *command;
  const char *values[M2SED_CTL_OPTION_COUNT]; /* NULL: not given; "" for those that take no value */
  char *const *arguments;
  uint32_t argument_count;
  struct m2sed_config config;
};

struct m2sed_command {
  const char *words;     /* "checkpoint list" */
  const char *arguments; /* "USER" */
  uint32_t arguments_min, arguments_max;
  uint32_t options; /* bits; those that all take are added */
  bool servers;     /* asks Redis or Kafka */
  const char *summary;
  int (*run)(struct m2sed_ctl *ctl); /* returns the exit status */
};

/* The commands. */
int m2sed_ctl_status(struct m2sed_ctl *ctl);
int m2sed_ctl_sequence(struct m2sed_ctl *ctl);
int m2sed_ctl_recommend(struct m2sed_ctl *ctl);
int m2sed_ctl_explain(struct m2sed_ctl *ctl);
int m2sed_ctl_checkpoint_list(struct m2sed_ctl *ctl);
int m2sed_ctl_checkpoint_show(struct m2sed_ctl *ctl);
int m2sed_ctl_checkpoint_verify(struct m2sed_ctl *ctl);
int m2sed_ctl_checkpoint_now(struct m2sed_ctl *ctl);
int m2sed_ctl_produce_interactions(struct m2sed_ctl *ctl);
int m2sed_ctl_produce_items(struct m2sed_ctl *ctl);
int m2sed_ctl_topics_create(struct m2sed_ctl *ctl);
int m2sed_ctl_dlq_list(struct m2sed_ctl *ctl);
int m2sed_ctl_dlq_replay(struct m2sed_ctl *ctl);
int m2sed_ctl_audit(struct m2sed_ctl *ctl);
int m2sed_ctl_rollback(struct m2sed_ctl *ctl);
int m2sed_ctl_features_status(struct m2sed_ctl *ctl);
int m2sed_ctl_pause(struct m2sed_ctl *ctl);
int m2sed_ctl_resume(struct m2sed_ctl *ctl);
int m2sed_ctl_tokenize(struct m2sed_ctl *ctl);
int m2sed_ctl_embed_text(struct m2sed_ctl *ctl);
int m2sed_ctl_embed_image(struct m2sed_ctl *ctl);
int m2sed_ctl_words(struct m2sed_ctl *ctl);

static inline bool m2sed_ctl_has(const struct m2sed_ctl *ctl, enum m2sed_ctl_option option) {
  return ctl->values[option];
}

/* The number that follows an option, min..max; without the option *number keeps what it has. 0, or EX_USAGE
 * and said why. */
int m2sed_ctl_real(const struct m2sed_ctl *ctl, enum m2sed_ctl_option option, double min, double max,
                   double *number);
int m2sed_ctl_whole(const struct m2sed_ctl *ctl, enum m2sed_ctl_option option, uint64_t max,
                    uint64_t *number);

/* A line on standard error, "m2sectl: ...". Returns status, so that `return m2sed_ctl_fail(...)` is one step.
 */
int m2sed_ctl_fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* So too, with the exit status that belongs to the error's code. */
int m2sed_ctl_fail_error(const struct m2se_error *error);
int m2sed_ctl_exit_status(int code); /* of a code of model/error.h */

/* Writes the text to standard output and empties it. 0, or EX_IOERR, EX_OSERR and said why. */
int m2sed_ctl_show(struct m2sed_text *text);

struct m2se_json_writer;
/* Finishes and shows what a writer holds, with a line's end behind it. */
int m2sed_ctl_show_json(struct m2se_json_writer *writer);

/* From the first call on, SIGINT and SIGTERM are remembered instead of ending the process. */
void m2sed_ctl_catch_interrupts(void);
bool m2sed_ctl_interrupted(void);

int64_t m2sed_ctl_wall_ms(void); /* since 1970 */
uint64_t m2sed_ctl_monotonic_ns(void);
/* Returns early when interrupted. */
void m2sed_ctl_sleep_until_ns(uint64_t monotonic_ns);

#endif
