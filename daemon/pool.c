#include "daemon/pool.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

/* DESIGN. `ticket` holds the number of the job and how many of its tasks nobody has taken. A thread takes one
 * by lowering it with compare-and-swap; because it names the job, a thread that comes late takes a task of
 * the job that runs now, or none. A task taken and not yet counted in `done` keeps run() from returning, so
 * what describes the job (task, arg, tasks) holds still exactly as long as somebody may read it. run() need
 * not wait for threads that were asleep all along. Which thread gets which task is left to chance: model/
 * sees to it that results don't depend on it. */
struct m2sed_pool {
  uint32_t threads;
  int nice;
  void (*task)(void *arg, uint32_t t, uint32_t w);
  void *arg;
  uint32_t tasks;
  _Alignas(64) atomic_ullong ticket; /* job << 32 | tasks not taken */
  _Alignas(64) atomic_uint done;     /* tasks of this job that have ended */
  _Alignas(64) atomic_uint sleepers;
  atomic_bool stop;
  pthread_mutex_t lock;
  pthread_cond_t wake;
  uint32_t started; /* of workers[] */
  struct worker {
    struct m2sed_pool *pool;
    uint32_t number;
    pthread_t thread;
  } workers[];
};

/* How long to look for work before sleeping: longer than the pauses within a step, far shorter than the time
 * a scheduler gives, so that a waiting worker does not take the processor from one that computes. */
enum { SPIN_NS = 30000, SPIN_ROUNDS = 64 };

static void spin_pause(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void take_tasks(struct m2sed_pool *pool, uint32_t worker) {
  unsigned long long ticket = atomic_load(&pool->ticket);
  while ((uint32_t)ticket > 0) {
    if (atomic_compare_exchange_weak(&pool->ticket, &ticket, ticket - 1)) {
      pool->task(pool->arg, pool->tasks - (uint32_t)ticket, worker);
      atomic_fetch_add(&pool->done, 1);
      ticket = atomic_load(&pool->ticket);
    }
  }
}

static bool has_work(struct m2sed_pool *pool) {
  return (uint32_t)atomic_load(&pool->ticket) > 0 || atomic_load(&pool->stop);
}

static bool all_done(struct m2sed_pool *pool) {
  return atomic_load(&pool->done) == pool->tasks;
}

/* Looks for at most SPIN_NS whether `ready` holds. */
static bool spin_until(bool (*ready)(struct m2sed_pool *pool), struct m2sed_pool *pool) {
  int64_t deadline = now_ns() + SPIN_NS;
  do {
    for (int i = 0; i < SPIN_ROUNDS; i++) {
      if (ready(pool)) {
        return true;
      }
      spin_pause();
    }
  } while (now_ns() < deadline);
  return false;
}

static void wait_for_work(struct m2sed_pool *pool) {
  if (spin_until(has_work, pool)) {
    return;
  }
  pthread_mutex_lock(&pool->lock);
  atomic_fetch_add(&pool->sleepers, 1);
  while (!has_work(pool)) {
    pthread_cond_wait(&pool->wake, &pool->lock);
  }
  atomic_fetch_sub(&pool->sleepers, 1);
  pthread_mutex_unlock(&pool->lock);
}

void m2sed_pool_lower_thread(int nice) {
  assert(nice >= 0 && nice <= 19);
  if (nice > 0) {
    (void)setpriority(PRIO_PROCESS, 0, nice); /* Linux: of this thread only */
  }
}

static void *worker_main(void *arg) {
  struct worker *worker = arg;
  m2sed_pool_lower_thread(worker->pool->nice);
  while (!atomic_load(&worker->pool->stop)) {
    wait_for_work(worker->pool);
    take_tasks(worker->pool, worker->number);
  }
  return NULL;
}

/* After the ticket or `stop` was stored: a worker that had counted itself as a sleeper before may not have
 * seen it. */
static void wake_sleepers(struct m2sed_pool *pool) {
  if (atomic_load(&pool->sleepers) > 0) {
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
  }
}

static void pool_run(void *arg, void (*task)(void *arg, uint32_t t, uint32_t w), void *task_arg,
                     uint32_t tasks) {
  struct m2sed_pool *pool = arg;
  if (pool->started == 0 || tasks <= 1) {
    for (uint32_t t = 0; t < tasks; t++) {
      task(task_arg, t, 0);
    }
    return;
  }
  pool->task = task;
  pool->arg = task_arg;
  pool->tasks = tasks;
  atomic_store(&pool->done, 0);
  unsigned long long job = (atomic_load(&pool->ticket) >> 32) + 1;
  atomic_store(&pool->ticket, job << 32 | tasks);
  wake_sleepers(pool);
  take_tasks(pool, 0);
  while (!spin_until(all_done, pool)) {
    /* Another is still in the middle of a task, perhaps because it is not scheduled: leave it the processor.
     */
    struct timespec t = {0, 20000};
    nanosleep(&t, NULL);
  }
}

struct m2se_workers m2sed_pool_workers(struct m2sed_pool *pool) {
  return (struct m2se_workers){.count = pool->threads, .run = pool_run, .pool = pool};
}

int m2sed_pool_new(struct m2sed_pool **pool, uint32_t threads, int nice, struct m2se_error *error) {
  *pool = NULL;
  if (threads < 1 || threads > M2SED_POOL_THREADS_MAX) {
    return m2se_error_set(error, M2SE_EINVAL, "threads: %u is not in 1..%d", threads, M2SED_POOL_THREADS_MAX);
  }
  size_t bytes = sizeof(struct m2sed_pool) + threads * sizeof(struct worker);
  struct m2sed_pool *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (p == NULL) {
    return m2se_error_set(error, M2SE_ENOMEM, "a pool of %u threads", threads);
  }
  memset(p, 0, bytes);
  p->threads = threads;
  p->nice = nice;
  pthread_mutex_init(&p->lock, NULL);
  pthread_cond_init(&p->wake, NULL);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the main thread's business */
  int failed = 0;
  for (uint32_t i = 1; i < threads && failed == 0; i++) {
    struct worker *worker = &p->workers[i - 1];
    *worker = (struct worker){.pool = p, .number = i};
    failed = pthread_create(&worker->thread, NULL, worker_main, worker);
    if (failed == 0) {
      p->started++;
    }
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (failed != 0) {
    m2sed_pool_free(p);
    return m2se_error_set(error, M2SE_EIO, "starting %u threads: %s", threads, strerror(failed));
  }
  *pool = p;
  return 0;
}

void m2sed_pool_free(struct m2sed_pool *pool) {
  if (pool == NULL) {
    return;
  }
  atomic_store(&pool->stop, true);
  wake_sleepers(pool);
  for (uint32_t i = 0; i < pool->started; i++) {
    pthread_join(pool->workers[i].thread, NULL);
  }
  pthread_mutex_destroy(&pool->lock);
  pthread_cond_destroy(&pool->wake);
  free(pool);
}
