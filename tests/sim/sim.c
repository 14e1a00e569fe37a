/* sim [--seed N] [--schedules N] [--jobs N] [--first] [--verbose]
 *   runs the schedules of the seeds N, N + 1, ... until five have failed (--first: one).
 * sim --ci [--jobs N]
 *   those of the seeds 1 to 100. M2SED_LONG=1: also 5,000 from a fresh seed, or from M2SED_SEED, on.
 */
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "daemon/config.h"
#include "daemon/loop.h"
#include "tests/sim/sim.h"

struct sim_world *sim;
static int null_fd;
static char folder[64], undisturbed_folder[64];
static uint64_t lives, kills, compared;

uint64_t sim_draw(uint64_t below) {
  uint64_t z = (sim->random += UINT64_C(0x9e3779b97f4a7c15));
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return (z ^ z >> 31) % below;
}

bool sim_chance(uint32_t of_1000) {
  return sim_draw(1000) < of_1000;
}

void sim_trace(const char *format, ...) {
  char *line = sim->traces[sim->trace_next++ % SIM_TRACES];
  int size = snprintf(line, sizeof sim->traces[0], "%" PRId64 " ", sim->now_ms % 100000000);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line + size, sizeof sim->traces[0] - (size_t)size, format, arguments);
  va_end(arguments);
  if (sim->verbose)
    fprintf(stderr, "%s\n", line);
}

void sim_fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(sim->failure, sizeof sim->failure, format, arguments);
  va_end(arguments);
  sim_trace("%s", sim->failure);
  _exit(1);
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *walk) {
  (void)status, (void)kind, (void)walk;
  return remove(path);
}

static void empty_folder(const char *path) {
  nftw(path, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
  if (mkdir(path, 0700)) {
    perror(path);
    exit(2);
  }
}

/* ---- one life ---- */

static void configure(struct m2sed_config *c, const char *dir) {
  m2sed_config_defaults(c);
  snprintf(c->checkpoint_dir, sizeof c->checkpoint_dir, "%s", dir);
  c->checkpoint_init_if_empty = true;
  c->checkpoint_every_seconds = 1;
  c->checkpoint_keep = 2;
  c->http_listen[0] = c->kafka_status[0] = c->kafka_erasures[0] = 0;
  c->kafka_garbage_share = 1;
  c->redis_in_flight = sim->in_flight;
  c->sequence_length = sim->length;
  c->sequence_keep = sim->keep;
  c->model_feature_dim = SIM_DIM;
  c->model_attention = c->model_hidden = c->model_ffn = 8;
  c->model_experts = 2;
  c->model_layers = c->model_heads = 1;
  c->model_items_max = 64;
  c->model_rows_max = 4;
  c->train_batch = sim->batch;
  c->train_backlog = sim->backlog;
  c->train_reservoir = sim->reservoir;
  c->train_parking = sim->parking;
  c->train_parking_events = sim->parking_events;
  c->train_overload = sim->shrink ? M2SED_OVERLOAD_SHRINK : M2SED_OVERLOAD_PAUSE;
  c->serve_epoch_steps = sim->epoch_steps;
}

static void live(const char *dir, bool until_end) {
  static struct m2sed_config config;
  static struct m2sed_log log;
  configure(&config, dir);
  m2sed_log_init(&log, sim->verbose ? 2 : null_fd, sim->verbose ? M2SED_LOG_INFO : M2SED_LOG_ERROR,
                 M2SED_LOG_LOGFMT, "sim");
  const struct m2sed_loop_options options = {.config = &config, .log = &log, .until_end = until_end};
  struct m2sed_loop_summary summary;
  struct m2se_error error = {0};
  sim_threads_begin();
  int code = m2sed_config_check(&config, &error);
  if (!code)
    code = m2sed_loop_run(&options, &summary, &error);
  if (code == M2SE_EMISSING && strstr(error.text, "Redis has lost sequences"))
    _exit(SIM_AGAIN); /* as it promises, when that happens during the last steps of a life */
  if (code)
    sim_fail("the daemon fails: %d %s", code, error.text);
}

/* "" or what went wrong in it; *again: it wants another life. */
static const char *run_life(const char *dir, bool until_end, bool *again) {
  fflush(NULL);
  pid_t child = fork();
  if (child == 0) {
    live(dir, until_end);
    _exit(0);
  }
  int status;
  if (child < 0 || waitpid(child, &status, 0) != child)
    return "no child";
  lives++;
  if (WIFSIGNALED(status))
    return "it crashed: an assert does not hold (see above)";
  if (WEXITSTATUS(status) == SIM_STUCK)
    return "it comes to no end";
  kills += WEXITSTATUS(status) == SIM_KILLED;
  *again = WEXITSTATUS(status) == SIM_AGAIN;
  return sim->failure;
}

static void calm(void) {
  sim->faults = (struct sim_faults){.work = 1000, .trainer_runs = 1000, .server_runs = 1000};
  sim->turns_left = sim->file_calls_left = sim->stop_in = UINT64_MAX;
}

/* ---- one schedule ---- */

static void draw_life(void) {
  calm();
  sim->lost_data = false;
  sim_draw_faults();
  uint64_t turns = 5 + sim_draw(sim_draw(900) + 1);
  switch (sim_draw(4)) {
  case 0:
    sim->stop_in = turns;
    break;
  case 1:
    sim->file_calls_left = sim_draw(40);
    sim->turns_left = 1500;
    break;
  default:
    sim->turns_left = turns;
  }
  sim_trace("a life begins");
}

static const char *undisturbed(void) {
  empty_folder(undisturbed_folder);
  static struct sim_redis_data redis;
  redis = sim->redis;
  sim->redis = (struct sim_redis_data){0};
  sim_trace("the undisturbed life begins");
  for (uint32_t p = 0; p < sim->partitions; p++)
    sim->interactions[p].committed = 0;
  memset(sim->epoch_steps_of, 0, sizeof sim->epoch_steps_of);
  sim->newest_epoch = sim->unsure_epoch = 0;
  bool again;
  const char *wrong = run_life(undisturbed_folder, true, &again);
  sim->redis = redis;
  return wrong;
}

static const char *run_schedule(uint64_t seed, bool verbose) {
  sim_make_schedule(seed);
  sim->verbose = verbose;
  empty_folder(folder);
  const char *wrong = "";
  bool again = true;
  for (uint64_t left = sim_draw(6); left > 0 && !wrong[0]; left--) {
    draw_life();
    wrong = run_life(folder, false, &again);
  }
  /* The last life comes to the end of the log, through the same faults but unkilled. */
  sim->now_ms += 10000;
  /* What Redis loses after the daemon's last question is noticed at the next start. */
  for (again = true; (again || sim->lost_data) && !wrong[0];) {
    draw_life();
    sim->turns_left = sim->file_calls_left = sim->stop_in = UINT64_MAX;
    wrong = run_life(folder, true, &again);
  }
  if (!wrong[0])
    wrong = sim_check(folder);
  if (!wrong[0] && !sim->late_items) {
    calm();
    compared++;
    wrong = undisturbed();
    wrong = wrong[0] ? wrong : sim_compare(folder, undisturbed_folder);
  }
  return wrong;
}

static void report(uint64_t seed, const char *wrong) {
  printf("seed %" PRIu64 ": %s\n", seed, wrong);
  uint32_t count = sim->trace_next < SIM_TRACES ? sim->trace_next : (uint32_t)SIM_TRACES;
  for (uint32_t i = sim->trace_next - count; i < sim->trace_next; i++)
    printf("  %s\n", sim->traces[i % SIM_TRACES]);
  printf("partitions %u, batch %u, backlog %u, parking %u, in flight %u%s%s\nagain: sim --seed %" PRIu64
         " --schedules 1 --verbose\n",
         sim->partitions, sim->batch, sim->backlog, sim->parking, sim->in_flight,
         sim->late_items ? ", late items" : "", sim->shrink ? ", shrink" : "", seed);
}

static double seconds(void) {
  struct timespec now;
  timespec_get(&now, TIME_UTC);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

struct job {
  uint64_t first, count, stride, failures_max;
  bool verbose;
};

/* What the jobs have done, in shared memory. */
static struct totals { uint64_t done, failures, lives, kills, compared; } * totals;

static void begin_job(void);
static void end_job(void);

/* One process: until the count is reached or enough have failed. */
static void run_job(struct job job) {
  begin_job();
  for (uint64_t i = 0; i < job.count && totals->failures < job.failures_max; i += job.stride) {
    const char *wrong = run_schedule(job.first + i, job.verbose);
    __atomic_fetch_add(&totals->done, 1, __ATOMIC_SEQ_CST);
    if (wrong[0]) {
      __atomic_fetch_add(&totals->failures, 1, __ATOMIC_SEQ_CST);
      report(job.first + i, wrong);
      fflush(stdout);
    }
  }
  __atomic_fetch_add(&totals->lives, lives, __ATOMIC_SEQ_CST);
  __atomic_fetch_add(&totals->kills, kills, __ATOMIC_SEQ_CST);
  __atomic_fetch_add(&totals->compared, compared, __ATOMIC_SEQ_CST);
  end_job();
}

/* Returns whether any failed. */
static bool run_schedules(struct job all) {
  double begin = seconds();
  *totals = (struct totals){0};
  fflush(NULL);
  for (uint64_t i = 0; i < all.stride && i < all.count; i++) {
    pid_t child = fork();
    if (child == 0) {
      run_job((struct job){all.first + i, all.count - i, all.stride, all.failures_max, all.verbose});
      _exit(0);
    }
    if (child < 0) {
      perror("fork");
      exit(2);
    }
  }
  bool bad = false;
  for (int status; wait(&status) > 0;)
    bad |= status != 0;
  double took = seconds() - begin;
  printf("%" PRIu64 " schedules from seed %" PRIu64 " on: %" PRIu64 " failed; %" PRIu64 " lives, %" PRIu64
         " kills, %" PRIu64 " compared with the undisturbed run; %.1f s, %.0f schedules/s\n",
         totals->done, all.first, totals->failures, totals->lives, totals->kills, totals->compared, took,
         (double)totals->done / took);
  return bad || totals->failures > 0;
}

/* The short form plays the same schedules everywhere: what a fresh seed finds is for those who look for it.
 */
static bool run_ci(struct job job) {
  const char *given = getenv("M2SED_SEED"), *longer = getenv("M2SED_LONG");
  bool bad = run_schedules(job);
  if (longer && strcmp(longer, "1") == 0) {
    job.first = given ? strtoull(given, NULL, 10) : (uint64_t)(seconds() * 1000) % 1000000000000;
    job.count = 5000;
    printf("M2SED_SEED=%" PRIu64 "\n", job.first);
    bad |= run_schedules(job);
  }
  return bad;
}

static void *share(size_t size) {
  void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    perror("shared memory");
    exit(2);
  }
  return memory;
}

static void begin_simulation(void) {
  totals = share(sizeof *totals);
  null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (null_fd < 0) {
    perror("/dev/null");
    exit(2);
  }
}

static void begin_job(void) {
  sim = share(sizeof *sim);
  const char *scratch = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : ".";
  snprintf(folder, sizeof folder, "%s/m2sed-sim-%d", scratch, (int)getpid());
  snprintf(undisturbed_folder, sizeof undisturbed_folder, "%s/m2sed-sim-%d-undisturbed", scratch,
           (int)getpid());
}

static void end_job(void) {
  nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
  nftw(undisturbed_folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static bool take_arguments(int argc, char **argv, struct job *job, bool *ci) {
  for (int i = 1; i < argc; i++) {
    uint64_t *number = strcmp(argv[i], "--seed") == 0        ? &job->first
                       : strcmp(argv[i], "--schedules") == 0 ? &job->count
                       : strcmp(argv[i], "--jobs") == 0      ? &job->stride
                                                             : NULL;
    if (number && i + 1 < argc)
      *number = strtoull(argv[++i], NULL, 10);
    else if (strcmp(argv[i], "--ci") == 0)
      *ci = true;
    else if (strcmp(argv[i], "--first") == 0)
      job->failures_max = 1;
    else if (strcmp(argv[i], "--verbose") == 0)
      job->verbose = true;
    else
      return false;
  }
  return job->stride >= 1 && job->stride <= 64;
}

int main(int argc, char **argv) {
  if (!getenv("OPENBLAS_NUM_THREADS")) { /* its threads would not survive a fork */
    setenv("OPENBLAS_NUM_THREADS", "1", 1);
    execv("/proc/self/exe", argv);
  }
  struct job job = {.first = 1, .count = 100, .stride = 1, .failures_max = 5};
  bool ci = false;
  if (!take_arguments(argc, argv, &job, &ci)) {
    fprintf(stderr, "sim [--seed N] [--schedules N] [--jobs N] [--first] [--verbose] | --ci [--jobs N]\n");
    return 2;
  }
  begin_simulation();
  return ci ? run_ci(job) : run_schedules(job);
}
