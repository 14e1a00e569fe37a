/* m2sed: the program. A table of contents; everything is done elsewhere. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "daemon/config.h"
#include "daemon/embedded.h"
#include "daemon/folder.h"
#include "daemon/lock.h"
#include "daemon/log.h"
#include "daemon/loop.h"
#include "daemon/signals.h"
#include "model/blas.h"

extern char **environ;

/* Before the constructors of the libraries: OpenBLAS starts threads in its own, and a signal is delivered to
 * any thread that does not hold it. */
static void (*const hold_signals)(void) __attribute__((section(".preinit_array"), used)) = m2sed_signals_hold;

enum action { RUN, CHECK_CONFIG, PRINT_CONFIG };

struct options {
  const char *config_file;
  enum action action;
  bool until_end, init_if_empty, embedded;
};

static const char usage[] =
    "m2sed: learns recommendations from a stream of interactions.\n"
    "\n"
    "  m2sed --config FILE [OPTION...]\n"
    "\n"
    "  --config FILE     settings; without it the defaults hold (M2SED_SECTION_KEY in the environment "
    "changes one)\n"
    "  --check-config    look at the settings and stop: exit 0 if they are good\n"
    "  --print-config    show all settings with their explanation, and stop\n"
    "  --init-if-empty   begin with fresh weights if there is no checkpoint\n"
    "  --until-end       stop, with a last checkpoint, once all that the topics held at the start is "
    "learned\n"
    "  --embedded        bring a Kafka (in this process) and a Redis (a child) along, for trials\n"
    "  --version, --help\n"
    "\n"
    "SIGTERM: drain, write a checkpoint, exit 0; a second one: end at once. SIGUSR1: write a checkpoint "
    "now.\n"
    "Exit status: 0, or as in sysexits.h (64 usage, 78 settings, 66 no checkpoint, 65 bad data, 74 input or "
    "output).\n";

/* Returns -1 to go on, or an exit status. */
static int parse_options(int count, char **arguments, struct options *options) {
  enum { CONFIG = 256, CHECK, PRINT, INIT, UNTIL_END, EMBEDDED, VERSION, HELP };
  static const struct option table[] = {{"config", required_argument, NULL, CONFIG},
                                        {"check-config", no_argument, NULL, CHECK},
                                        {"print-config", no_argument, NULL, PRINT},
                                        {"init-if-empty", no_argument, NULL, INIT},
                                        {"until-end", no_argument, NULL, UNTIL_END},
                                        {"embedded", no_argument, NULL, EMBEDDED},
                                        {"version", no_argument, NULL, VERSION},
                                        {"help", no_argument, NULL, HELP},
                                        {NULL, 0, NULL, 0}};
  for (int option; (option = getopt_long(count, arguments, "", table, NULL)) != -1;) {
    switch (option) {
    case CONFIG:
      options->config_file = optarg;
      break;
    case CHECK:
      options->action = CHECK_CONFIG;
      break;
    case PRINT:
      options->action = PRINT_CONFIG;
      break;
    case INIT:
      options->init_if_empty = true;
      break;
    case UNTIL_END:
      options->until_end = true;
      break;
    case EMBEDDED:
      options->embedded = true;
      break;
    case VERSION:
      printf("m2sed %s\n", M2SED_VERSION);
      return EX_OK;
    case HELP:
      fputs(usage, stdout);
      return EX_OK;
    default:
      fputs("m2sed: see --help\n", stderr);
      return EX_USAGE;
    }
  }
  if (optind < count) {
    fprintf(stderr, "m2sed: '%s' is not an option; see --help\n", arguments[optind]);
    return EX_USAGE;
  }
  return -1;
}

static int exit_status(int code) {
  switch (code) {
  case 0:
    return EX_OK;
  case M2SE_EINVAL:
  case M2SE_ELIMIT:
    return EX_CONFIG;
  case M2SE_EMISSING:
    return EX_NOINPUT;
  case M2SE_EFORMAT:
  case M2SE_ERANGE:
  case M2SE_ETYPE:
  case M2SE_ESHAPE:
    return EX_DATAERR;
  case M2SE_EIO:
    return EX_IOERR;
  case M2SE_ENOMEM:
    return EX_OSERR;
  default:
    return EX_SOFTWARE;
  }
}

static void say_what_runs(struct m2sed_log *log) {
  M2SED_LOG(log, INFO, "starting", M2SED_S("version", M2SED_VERSION), M2SED_S("blas", m2se_blas_kernel()),
            M2SED_S("simd", m2se_simd_kernel()), M2SED_I("pid", getpid()));
}

static void say_what_is_embedded(const struct m2sed_config *config) {
  printf("embedded Kafka: %s (also in %s/brokers)\n"
         "embedded Redis: %s\n"
         "for trials: what Kafka holds ends with this process (about 5 MiB a partition, the oldest goes "
         "first);\n"
         "sequences, vectors and checkpoints stay in %s and %s\n",
         config->kafka_brokers, config->daemon_state_dir, config->redis_uri, config->daemon_state_dir,
         config->checkpoint_dir);
  fflush(stdout);
}

static void say_what_was_done(const struct m2sed_loop_summary *summary) {
  printf("%llu events taken in %.1f s; %llu trained in all; step %llu, epoch %llu, checkpoint %llu\n",
         (unsigned long long)summary->received, summary->seconds, (unsigned long long)summary->trained_events,
         (unsigned long long)summary->step, (unsigned long long)summary->epoch,
         (unsigned long long)summary->generation);
}

static int run_locked(const struct options *options, struct m2sed_config *config, struct m2sed_log *log,
                      struct m2se_error *error) {
  struct m2sed_embedded *embedded = NULL;
  int code = options->embedded ? m2sed_embedded_start(&embedded, config, error) : 0;
  if (code)
    return code;
  if (embedded)
    say_what_is_embedded(config);
  const struct m2sed_loop_options loop = {
      .config = config, .log = log, .until_end = options->until_end, .new_log = options->embedded};
  struct m2sed_loop_summary summary = {0};
  code = m2sed_loop_run(&loop, &summary, error);
  if (code > 0)
    _exit(EX_TEMPFAIL); /* told twice, or the lease is lost: nothing more is waited for */
  if (!code && options->until_end)
    say_what_was_done(&summary);
  struct m2se_error stop_error = {0};
  if (m2sed_embedded_stop(embedded, &stop_error))
    M2SED_LOG(log, WARN, "embedded servers did not end in order", M2SED_S("why", stop_error.text));
  return code;
}

static int run(const struct options *options, struct m2sed_config *config, struct m2sed_log *log,
               struct m2se_error *error) {
  signal(SIGPIPE, SIG_IGN); /* a connection that closes is an error of its write, not our end */
  int code = m2se_blas_check(error);
  if (code)
    return code;
  say_what_runs(log);
  code = m2sed_folder_make(config->checkpoint_dir, error);
  if (!code && options->embedded)
    code = m2sed_folder_make(config->daemon_state_dir, error);
  struct m2sed_lock lock = {.fd = -1};
  /* A process that hangs keeps the lock; those with a lease share it. */
  if (!code)
    code = m2sed_lock_take(&lock, config->checkpoint_dir, config->standby_lease_seconds > 0, error);
  if (code)
    return code;
  code = run_locked(options, config, log, error);
  m2sed_lock_release(&lock);
  return code;
}

static int print_config(const struct m2sed_config *config) {
  char *text = m2sed_config_print(config);
  if (!text)
    return EX_OSERR;
  fputs(text, stdout);
  free(text);
  return fflush(stdout) ? EX_IOERR : EX_OK;
}

int main(int count, char **arguments) {
  static struct m2sed_config config;
  static struct m2sed_log log;
  struct options options = {.action = RUN};
  struct m2se_error error = {0};
  int status = parse_options(count, arguments, &options);
  if (status >= 0)
    return status;
  if (m2sed_config_load(&config, options.config_file, environ, &error)) {
    fprintf(stderr, "m2sed: %s\n", error.text);
    return error.code == M2SE_EIO ? EX_NOINPUT : EX_CONFIG;
  }
  config.checkpoint_init_if_empty |= options.init_if_empty;
  if (options.action == PRINT_CONFIG)
    return print_config(&config);
  if (options.action == CHECK_CONFIG)
    return EX_OK;
  m2sed_log_init(&log, STDERR_FILENO, (enum m2sed_log_level)config.log_level,
                 (enum m2sed_log_format)config.log_format, config.daemon_instance);
  int code = run(&options, &config, &log, &error);
  if (code)
    M2SED_LOG(&log, ERROR, "ended with an error", M2SED_S("code", m2se_error_name(code)),
              M2SED_S("why", error.text));
  else
    M2SED_LOG(&log, INFO, "ended in order", M2SED_I("pid", getpid()));
  return exit_status(code);
}
