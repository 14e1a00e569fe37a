/* Time, threads and files of the simulation: the functions of libuv and libc that the daemon calls. */
#include <assert.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>
#include <uv.h>

#include "tests/sim/sim.h"

enum { HANDLES_MAX = 32, WORKS_MAX = 4, THREADS_MAX = 2, STACK_BYTES = 4 << 20, TURN_MS_MAX = 12 };

/* ---- the wrapped functions of libc (ld --wrap) ---- */
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);
long __wrap_syscall(long number, ...);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *),
                          void *arg);
int __wrap_pthread_join(pthread_t thread, void **result);
int __wrap_fsync(int fd);
int __real_fsync(int fd);
int __wrap_rename(const char *from, const char *to);
int __real_rename(const char *from, const char *to);
ssize_t __wrap_getrandom(void *bytes, size_t size, unsigned flags);
void *__wrap_memset(void *memory, int byte, size_t size);
void *__real_memset(void *memory, int byte, size_t size);

/* ---- threads are coroutines ---- */

static struct thread {
  ucontext_t context;
  void *(*body)(void *);
  void *arg;
  const unsigned *waits_on; /* a futex; NULL: runs */
  unsigned waits_while;
  bool made, over;
} threads[THREADS_MAX];
static uint32_t thread_count;
static struct thread *running; /* NULL: the loop */
static ucontext_t loop_context;

void sim_threads_begin(void) {
  memset(threads, 0, sizeof threads);
  thread_count = 0;
  running = NULL;
}

static void thread_main(void) {
  struct thread *self = running;
  self->body(self->arg);
  self->over = true;
  swapcontext(&self->context, &loop_context);
  assert(!"a thread that is over goes on");
}

static void resume(struct thread *thread) {
  if (thread->over ||
      (thread->waits_on && __atomic_load_n(thread->waits_on, __ATOMIC_SEQ_CST) == thread->waits_while))
    return;
  thread->waits_on = NULL;
  running = thread;
  swapcontext(&loop_context, &thread->context);
  running = NULL;
}

static void yield(void) {
  struct thread *self = running;
  swapcontext(&self->context, &loop_context);
}

int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attributes, void *(*body)(void *),
                          void *arg) {
  (void)attributes;
  assert(thread_count < THREADS_MAX);
  struct thread *thread = &threads[thread_count];
  void *stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  assert(stack != MAP_FAILED);
  getcontext(&thread->context);
  thread->context.uc_stack.ss_sp = stack;
  thread->context.uc_stack.ss_size = STACK_BYTES;
  thread->body = body;
  thread->arg = arg;
  makecontext(&thread->context, thread_main, 0);
  *out = (pthread_t)thread_count++;
  return 0;
}

int __wrap_pthread_join(pthread_t number, void **result) {
  assert(!result && number < thread_count);
  for (uint32_t i = 0; !threads[number].over; i++) {
    assert(i < 100000); /* it was told to end, and nothing holds it up */
    resume(&threads[number]);
  }
  return 0;
}

long __wrap_syscall(long number, ...) {
  va_list arguments;
  va_start(arguments, number);
  const unsigned *word = va_arg(arguments, const unsigned *);
  int operation = va_arg(arguments, int);
  unsigned value = va_arg(arguments, unsigned);
  const struct timespec *longest =
      operation == FUTEX_WAIT_PRIVATE ? va_arg(arguments, const struct timespec *) : NULL;
  va_end(arguments);
  assert(number == SYS_futex);
  if (operation == FUTEX_WAIT_PRIVATE) {
    assert(running);
    running->waits_on = longest ? NULL : word; /* one that may end by time ends at the next turn */
    running->waits_while = value;
    yield();
  }
  return 0;
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *now) {
  if (running == &threads[0] && clock == CLOCK_MONOTONIC &&
      sim_chance(300)) /* the trainer, before a step: the loop goes on */
    yield();
  *now = (struct timespec){sim->now_ms / 1000, sim->now_ms % 1000 * 1000000};
  return 0;
}

ssize_t __wrap_getrandom(void *bytes, size_t size, unsigned flags) {
  (void)flags;
  for (size_t i = 0; i < size; i++)
    ((uint8_t *)bytes)[i] = (uint8_t)sim_draw(256);
  return (ssize_t)size;
}

/* The daemon touches all of its memory at the start, most of which no schedule uses: touching it took most of
 * a life. What the kernel takes back reads as zeros too. (In private memory: the world is shared.) */
void *__wrap_memset(void *memory, int byte, size_t size) {
  enum { LARGE = 1 << 16, PAGE = 4096 };
  uintptr_t at = (uintptr_t)memory, first = (at + PAGE - 1) & ~(uintptr_t)(PAGE - 1),
            end = (at + size) & ~(uintptr_t)(PAGE - 1), world = (uintptr_t)sim;
  bool shared = at + size > world && at < world + sizeof *sim;
  if (byte || size < LARGE || shared || madvise((void *)first, end - first, MADV_DONTNEED))
    return __real_memset(memory, byte, size);
  __real_memset(memory, 0, first - at);
  __real_memset((void *)end, 0, at + size - end);
  return memory;
}

/* ---- the checkpoint folder ---- */

static void kill_at(uint64_t *left, const char *what) {
  if (*left == UINT64_MAX)
    return;
  if (*left == 0) {
    sim_trace("killed %s", what);
    _exit(SIM_KILLED);
  }
  --*left;
}

int __wrap_fsync(int fd) {
  kill_at(&sim->file_calls_left, "at an fsync");
  return __real_fsync(fd);
}

int __wrap_rename(const char *from, const char *to) {
  kill_at(&sim->file_calls_left, "before a rename");
  int code = __real_rename(from, to);
  kill_at(&sim->file_calls_left, "after a rename");
  return code;
}

/* ---- libuv: handles ---- */

static struct {
  uv_handle_t *handle;
  enum { ASYNC, IDLE, TIMER, SIGNAL } kind;
  bool active, sent, closing;
  uv_close_cb closed;
  uv_async_cb on_async;
  uv_idle_cb on_idle;
  uv_timer_cb on_timer;
  int64_t due_ms;
  uint64_t repeat_ms;
  uv_signal_cb on_signal;
  int number;
} handles[HANDLES_MAX];
static uint32_t handle_count;
static uv_work_t *works[WORKS_MAX];
static uint32_t work_count;
static bool stopped;

static uint32_t add(uv_loop_t *loop, uv_handle_t *handle, int kind) {
  assert(handle_count < HANDLES_MAX);
  handle->loop = loop;
  memset(&handles[handle_count], 0, sizeof handles[0]);
  handles[handle_count].handle = handle;
  handles[handle_count].kind = kind;
  return handle_count++;
}

static uint32_t find(const void *handle) {
  uint32_t i = 0;
  while (i < handle_count && handles[i].handle != handle)
    i++;
  assert(i < handle_count);
  return i;
}

int uv_loop_init(uv_loop_t *loop) {
  memset(loop, 0, sizeof *loop);
  handle_count = work_count = 0;
  return 0;
}
int uv_loop_close(uv_loop_t *loop) {
  (void)loop;
  return handle_count ? UV_EBUSY : 0;
}
int uv_async_init(uv_loop_t *loop, uv_async_t *async, uv_async_cb call) {
  handles[add(loop, (uv_handle_t *)async, ASYNC)].on_async = call;
  return 0;
}
int uv_async_send(uv_async_t *async) {
  handles[find(async)].sent = true;
  return 0;
}
int uv_idle_init(uv_loop_t *loop, uv_idle_t *idle) {
  add(loop, (uv_handle_t *)idle, IDLE);
  return 0;
}
int uv_idle_start(uv_idle_t *idle, uv_idle_cb call) {
  uint32_t i = find(idle);
  handles[i].on_idle = call;
  handles[i].active = true;
  return 0;
}
int uv_idle_stop(uv_idle_t *idle) {
  handles[find(idle)].active = false;
  return 0;
}
int uv_timer_init(uv_loop_t *loop, uv_timer_t *timer) {
  add(loop, (uv_handle_t *)timer, TIMER);
  return 0;
}
int uv_timer_start(uv_timer_t *timer, uv_timer_cb call, uint64_t in_ms, uint64_t repeat_ms) {
  uint32_t i = find(timer);
  handles[i].on_timer = call;
  handles[i].due_ms = sim->now_ms + (int64_t)in_ms;
  handles[i].repeat_ms = repeat_ms;
  handles[i].active = true;
  return 0;
}
int uv_timer_stop(uv_timer_t *timer) {
  handles[find(timer)].active = false;
  return 0;
}
int uv_signal_init(uv_loop_t *loop, uv_signal_t *signal) {
  add(loop, (uv_handle_t *)signal, SIGNAL);
  return 0;
}
int uv_signal_start(uv_signal_t *signal, uv_signal_cb call, int number) {
  uint32_t i = find(signal);
  handles[i].on_signal = call;
  handles[i].number = number;
  return 0;
}
int uv_queue_work(uv_loop_t *loop, uv_work_t *work, uv_work_cb call, uv_after_work_cb after) {
  assert(work_count < WORKS_MAX);
  work->loop = loop;
  work->work_cb = call;
  work->after_work_cb = after;
  works[work_count++] = work;
  return 0;
}
void uv_close(uv_handle_t *handle, uv_close_cb closed) {
  uint32_t i = find(handle);
  handles[i].closing = true;
  handles[i].closed = closed;
}
int uv_is_closing(const uv_handle_t *handle) {
  return handles[find(handle)].closing;
}
void uv_walk(uv_loop_t *loop, uv_walk_cb call, void *arg) {
  (void)loop;
  for (uint32_t i = 0; i < handle_count; i++)
    call(handles[i].handle, arg);
}
void uv_stop(uv_loop_t *loop) {
  (void)loop;
  stopped = true;
}
void uv_update_time(uv_loop_t *loop) {
  (void)loop;
}
uint64_t uv_now(const uv_loop_t *loop) {
  (void)loop;
  return (uint64_t)sim->now_ms;
}
uint64_t uv_hrtime(void) {
  return (uint64_t)sim->now_ms * 1000000;
}

/* ---- libuv: the turns ---- */

static void close_what_closes(void) {
  for (uint32_t i = 0; i < handle_count;) {
    if (!handles[i].closing) {
      i++;
      continue;
    }
    uv_handle_t *handle = handles[i].handle;
    uv_close_cb closed = handles[i].closed;
    handles[i] = handles[--handle_count];
    if (closed)
      closed(handle);
  }
}

/* A callback may close handles, never add one (loop_http.c does, and is not here). */
static void run_handle(uint32_t i) {
  uv_handle_t *handle = handles[i].handle;
  if (handles[i].closing)
    return;
  switch (handles[i].kind) {
  case ASYNC:
    if (handles[i].sent) {
      handles[i].sent = false;
      handles[i].on_async((uv_async_t *)handle);
    }
    break;
  case IDLE:
    if (handles[i].active)
      handles[i].on_idle((uv_idle_t *)handle);
    break;
  case TIMER:
    if (!handles[i].active || handles[i].due_ms > sim->now_ms)
      break;
    handles[i].due_ms = sim->now_ms + (int64_t)handles[i].repeat_ms;
    handles[i].active = handles[i].repeat_ms > 0;
    handles[i].on_timer((uv_timer_t *)handle);
    break;
  case SIGNAL:
    if (handles[i].number == SIGTERM && sim->stop_in == 0) {
      sim->stop_in = UINT64_MAX;
      sim_trace("SIGTERM");
      handles[i].on_signal((uv_signal_t *)handle, SIGTERM);
    }
    break;
  }
}

static void run_work(void) {
  if (!work_count || !sim_chance(sim->faults.work))
    return;
  uv_work_t *work = works[0];
  memmove(works, works + 1, --work_count * sizeof works[0]);
  work->work_cb(work);
  work->after_work_cb(work, 0);
}

int uv_run(uv_loop_t *loop, uv_run_mode mode) {
  (void)loop;
  stopped = false;
  for (uint64_t turns = 0; (handle_count || work_count) && !stopped; turns++) {
    if (turns == 400000) {
      sim_trace("it comes to no end");
      _exit(SIM_STUCK);
    }
    kill_at(&sim->turns_left, "between turns");
    if (sim->stop_in != UINT64_MAX && sim->stop_in > 0)
      sim->stop_in--;
    sim->now_ms += (int64_t)sim_draw(TURN_MS_MAX + 1);
    if (thread_count > 0 && sim_chance(sim->faults.trainer_runs))
      resume(&threads[0]);
    if (thread_count > 1 && sim_chance(sim->faults.server_runs))
      resume(&threads[1]);
    sim_redis_turn();
    sim_kafka_turn();
    for (uint32_t i = 0; i < handle_count; i++)
      run_handle(i);
    run_work();
    close_what_closes();
    if (mode != UV_RUN_DEFAULT)
      break;
  }
  return 0;
}
