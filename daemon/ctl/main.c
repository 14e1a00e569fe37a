/* m2sectl: the table of commands, and how a command line is understood. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/embedded.h"

extern char **environ;

#define BIT(option) (1u << M2SED_CTL_##option)
#define PRODUCE (BIT(FORMAT) | BIT(RATE) | BIT(SKIP) | BIT(LIMIT) | BIT(PARTITION) | BIT(QUIET) | BIT(JSON))

static const uint32_t options_of_all = BIT(CONFIG) | BIT(EMBEDDED) | BIT(HELP);

static const struct m2sed_command commands[] = {
    {"status", "", 0, 0, BIT(JSON) | BIT(WATCH), true,
     "How the daemon is: its newest status, at most a second old. With --watch the live view of what comes "
     "in, "
     "what is learned and how good it is.",
     m2sed_ctl_status},
    {"sequence", "USER", 1, 1, BIT(JSON) | BIT(TITLES), true,
     "The newest items of a user, oldest first, as the model knows them.", m2sed_ctl_sequence},
    {"recommend", "USER", 1, 1, BIT(JSON) | BIT(COUNT) | BIT(INCLUDE_SEEN) | BIT(TITLES), true,
     "The best items for a user, from the published vectors of one epoch.", m2sed_ctl_recommend},
    {"explain", "USER", 1, 1, BIT(JSON) | BIT(COUNT) | BIT(TITLES), true,
     "What recommendations come from: the sequence that the model looks at, and beside it the best items, "
     "those of the sequence too, with what the text space, the image space and the item's bias add to their "
     "score.",
     m2sed_ctl_explain},
    {"checkpoint list", "", 0, 0, BIT(JSON), false, "The generations on the disk.",
     m2sed_ctl_checkpoint_list},
    {"checkpoint show", "[GEN]", 0, 1, BIT(JSON), false, "The manifest of a generation (the newest).",
     m2sed_ctl_checkpoint_show},
    {"checkpoint verify", "[GEN|all]", 0, 1, BIT(JSON), false,
     "Sizes, checksums and content of a generation (the newest), or of all. Exit status 65 if one is "
     "damaged.",
     m2sed_ctl_checkpoint_verify},
    {"checkpoint now", "", 0, 0, BIT(JSON) | BIT(TIMEOUT), false,
     "Have the daemon of this machine write a checkpoint, and wait for it.", m2sed_ctl_checkpoint_now},
    {"produce interactions", "FILE|-", 1, 1, PRODUCE | BIT(NOW), true,
     "Check interactions and write them to their topic, by user. Bad lines are told and left out: then the "
     "exit "
     "status is 65.",
     m2sed_ctl_produce_interactions},
    {"produce items", "FILE|-", 1, 1, PRODUCE, true,
     "Check items and write them to their topic, by item id. Bad lines are told and left out: then the exit "
     "status is 65.",
     m2sed_ctl_produce_items},
    {"topics create", "", 0, 0, BIT(PARTITIONS) | BIT(REPLICATION) | BIT(JSON), true,
     "Make the topics that are not there: interactions, items (compacted), what they leave as dead letters, "
     "and the status.",
     m2sed_ctl_topics_create},
    {"dlq list", "[interactions|items]", 0, 1, BIT(JSON) | BIT(NEWEST) | BIT(RULE), true,
     "The records that the daemon could not use: their place in the dead-letter topic, the place that they "
     "came "
     "from (partition/offset), the rule that they break, and how they begin.",
     m2sed_ctl_dlq_list},
    {"dlq replay", "[interactions|items]", 0, 1,
     BIT(JSON) | BIT(RULE) | BIT(LIMIT) | BIT(FROM) | BIT(DRY_RUN), true,
     "Write dead letters to their topic once more, as they came, for when what was wrong has been mended. "
     "They get new positions there: one that is sent back twice counts twice, unless it has an event_id. "
     "They stay in the dead-letter topic.",
     m2sed_ctl_dlq_replay},
    {"features status", "", 0, 0, BIT(JSON), false,
     "How many items, texts and pictures the store of computed features has, how many wait, and why which "
     "were refused.",
     m2sed_ctl_features_status},
    {"audit", "", 0, 0, BIT(JSON) | BIT(SAMPLE), true,
     "Walk through the users in Redis: every sequence can be read, every vector is finite, as wide as the "
     "model's, of an epoch that there is, and has its sequence. Exit status 65 if something is wrong.",
     m2sed_ctl_audit},
    {"rollback", "GEN", 1, 1, BIT(YES), false,
     "Have the daemon, which must be stopped, go on from an older generation: a copy of it becomes the "
     "newest, those after it are put aside. The events since then are read and learned once more; sequences "
     "in Redis stay as they are, for events that they have are not added twice; vectors follow with the "
     "next epoch.",
     m2sed_ctl_rollback},
    {"pause", "[WHY]", 0, 1, 0, false,
     "Have the daemon take no more interactions, until resume: a file 'paused' in checkpoint.dir says so, "
     "after a restart too. What has been taken is learned; items and erasures are followed; vectors are "
     "served.",
     m2sed_ctl_pause},
    {"resume", "", 0, 0, 0, false, "Have the daemon go on after pause.", m2sed_ctl_resume},
    {"tokenize", "[TEXT]", 0, 1, BIT(MODEL) | BIT(JSONL) | BIT(MAX), false,
     "What a model reads of a text: {\"tokens\": those of the text, \"ids\": with the first and the last}.",
     m2sed_ctl_tokenize},
    {"embed-text", "[TEXT]", 0, 1, BIT(MODEL) | BIT(JSONL) | BIT(MAX) | BIT(POOLING) | BIT(NO_NORMALIZE),
     false, "What a model makes of a text: {\"vector\": its numbers}.", m2sed_ctl_embed_text},
    {"embed-image", "FILE...", 0, UINT32_MAX, BIT(MODEL) | BIT(NO_NORMALIZE) | BIT(PIXEL_VALUES), false,
     "What a CLIP makes of pictures: a line {\"file\": its name, \"vector\": its numbers} each, or why not. "
     "Exit "
     "status 65 if one cannot be used.",
     m2sed_ctl_embed_image},
    {"words", "FILE...", 1, UINT32_MAX, BIT(MODEL) | BIT(WORDS) | BIT(TEMPLATES) | BIT(NEWEST), false,
     "The words of a dictionary that fit pictures best by a CLIP: a line {\"file\": its name, \"words\": "
     "with "
     "the cosine of each, best first} each, or why not. The words' vectors are kept in the model's folder.",
     m2sed_ctl_words},
};
enum { COMMANDS = sizeof commands / sizeof commands[0], LINE_COLUMNS = 96, HELP_COLUMN = 22 };

/* ---- help ---- */

/* Breaks a paragraph at blanks; its first line goes on where the text stands, at `column`. */
static void add_paragraph(struct m2sed_text *text, const char *words, int column) {
  int at = column;
  while (*words) {
    int length = (int)strcspn(words, " ");
    if (at > column && at + 1 + length > LINE_COLUMNS) {
      m2sed_text_add(text, "\n%*s", column, "");
      at = column;
    }
    m2sed_text_add(text, "%s%.*s", at > column ? " " : "", length, words);
    at += length + (at > column);
    words += length + strspn(words + length, " ");
  }
  m2sed_text_add(text, "\n");
}

static void add_options(struct m2sed_text *text, uint32_t options) {
#define ADD_OPTION(option, name, value, help)                                                                \
  if (options & BIT(option)) {                                                                               \
    const char *takes = (value) ? (value) : "", *dashes = sizeof(name) > 2 ? "--" : "-";                     \
    int width = HELP_COLUMN - 2 - (int)strlen(dashes) - (int)sizeof(name);                                   \
    m2sed_text_add(text, "  %s%s %-*s", dashes, name, width, takes);                                         \
    add_paragraph(text, help, HELP_COLUMN);                                                                  \
  }
  M2SED_CTL_OPTIONS(ADD_OPTION)
#undef ADD_OPTION
}

static int show_help(const struct m2sed_command *command) {
  struct m2sed_text text = {0};
  if (command) {
    m2sed_text_add(&text, "m2sectl %s%s%s [OPTION...]\n\n", command->words, command->arguments[0] ? " " : "",
                   command->arguments);
    add_paragraph(&text, command->summary, 0);
    m2sed_text_add(&text, "\n");
    add_options(&text, command->options | options_of_all);
  } else {
    m2sed_text_add(&text, "m2sectl: for those who run m2sed.\n\n  m2sectl COMMAND [OPTION...]\n\n");
    for (int i = 0; i < COMMANDS; i++) {
      m2sed_text_add(&text, "  %s%s%s\n      ", commands[i].words, commands[i].arguments[0] ? " " : "",
                     commands[i].arguments);
      add_paragraph(&text, commands[i].summary, 6);
    }
    m2sed_text_add(&text, "\n");
    add_options(&text, options_of_all);
    m2sed_text_add(&text,
                   "\nm2sectl COMMAND --help says more. Exit status: 0, or as in sysexits.h: 64 usage, "
                   "65 bad data,\n66 not there, 69 a server does not answer, 74 input or output, 75 try "
                   "again later, 78 settings.\n");
  }
  int status = m2sed_ctl_show(&text);
  m2sed_text_free(&text);
  return status;
}

/* ---- the command line ---- */

/* The command that the first words name, and how many words that were. */
static const struct m2sed_command *find_command(char *const *words, uint32_t count, uint32_t *used) {
  for (int i = 0; i < COMMANDS; i++) {
    const char *blank = strchr(commands[i].words, ' ');
    size_t first = blank ? (size_t)(blank - commands[i].words) : strlen(commands[i].words);
    if (count < 1 || strlen(words[0]) != first || strncmp(words[0], commands[i].words, first) != 0)
      continue;
    if (blank && (count < 2 || strcmp(words[1], blank + 1) != 0))
      continue;
    *used = blank ? 2 : 1;
    return &commands[i];
  }
  return NULL;
}

/* Options may stand anywhere. 0, or an exit status. */
static int read_options(struct m2sed_ctl *ctl, int count, char **arguments) {
  static const struct option table[] = {
#define ROW(option, name, value, help) {name, (value) != NULL, NULL, 256 + M2SED_CTL_##option},
      M2SED_CTL_OPTIONS(ROW)
#undef ROW
          {NULL, 0, NULL, 0}};
  for (int option; (option = getopt_long(count, arguments, "k:n:h", table, NULL)) != -1;) {
    if (option == '?')
      return EX_USAGE; /* getopt has said why */
    option = option == 'k'   ? M2SED_CTL_COUNT
             : option == 'n' ? M2SED_CTL_NEWEST
             : option == 'h' ? M2SED_CTL_HELP
                             : option - 256;
    ctl->values[option] = optarg ? optarg : "";
  }
  return 0;
}

static int check_line(const struct m2sed_ctl *ctl) {
  const struct m2sed_command *command = ctl->command;
#define CHECK(option, name, value, help)                                                                     \
  if (ctl->values[M2SED_CTL_##option] && !((command->options | options_of_all) & BIT(option)))               \
    return m2sed_ctl_fail(EX_USAGE, "%s takes no option '%s'; see m2sectl %s --help", command->words, name,  \
                          command->words);
  M2SED_CTL_OPTIONS(CHECK)
#undef CHECK
  if (ctl->argument_count < command->arguments_min || ctl->argument_count > command->arguments_max)
    return m2sed_ctl_fail(EX_USAGE, "%s takes %s%s; see m2sectl %s --help", command->words,
                          command->arguments[0] ? "" : "nothing more", command->arguments, command->words);
  return 0;
}

/* The settings, and where the servers are. */
static int load_config(struct m2sed_ctl *ctl) {
  struct m2se_error error = {0};
  int code = m2sed_config_load(&ctl->config, ctl->values[M2SED_CTL_CONFIG], environ, &error);
  if (code)
    return m2sed_ctl_fail(code == M2SE_EIO ? EX_NOINPUT : EX_CONFIG, "%s", error.text);
  bool embedded = m2sed_ctl_has(ctl, M2SED_CTL_EMBEDDED) && ctl->command->servers;
  code = embedded ? m2sed_ctl_find_embedded(&ctl->config, &error) : 0;
  return code ? m2sed_ctl_fail_error(&error) : 0;
}

int main(int count, char **arguments) {
  static struct m2sed_ctl ctl;
  signal(SIGPIPE, SIG_IGN); /* a reader that goes away is an error of our write */
  int status = read_options(&ctl, count, arguments);
  if (status)
    return status;
  uint32_t used = 0, words = (uint32_t)(count - optind);
  ctl.command = find_command(arguments + optind, words, &used);
  if (m2sed_ctl_has(&ctl, M2SED_CTL_HELP))
    return show_help(ctl.command);
  if (!words)
    return m2sed_ctl_fail(EX_USAGE, "which command? See m2sectl --help");
  if (!ctl.command)
    return m2sed_ctl_fail(EX_USAGE, "there is no command '%.80s%s%.80s'; see m2sectl --help",
                          arguments[optind], words > 1 ? " " : "", words > 1 ? arguments[optind + 1] : "");
  ctl.arguments = arguments + optind + used;
  ctl.argument_count = words - used;
  status = check_line(&ctl);
  if (!status)
    status = load_config(&ctl);
  return status ? status : ctl.command->run(&ctl);
}
