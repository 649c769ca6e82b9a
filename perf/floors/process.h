/* Clock, failures, shared memory and child processes of a floor.
 *
 * Whatever happens, nothing stays behind and nothing hangs: each process dies with the one that started it, ends itself
 * at its deadline, and the first process kills and reaps all others before it leaves.
 */
#ifndef PARTYWIRE_FLOORS_PROCESS_H
#define PARTYWIRE_FLOORS_PROCESS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { CHILDREN_MAX = 64 };

/* Nanoseconds of CLOCK_MONOTONIC. */
uint64_t now_ns(void);

/* Print one sentence on standard error and end this process with code 1. The first process ends the others too. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* First thing in main: `parent` is the process that must outlive this one, `deadline_s` how long all may take. */
void begin(pid_t parent, double deadline_s);

/* Fork a process that runs `body(argument)`, which must not return. `role` names it in messages and must stay. */
pid_t start_child(const char *role, void (*body)(void *), void *argument);

/* Sleep so long, but fail if a child ends meanwhile: none of them ends on its own while all is well. */
void sleep_beside_children(double seconds);

/* Kill and reap every child. */
void end_children(void);

/* CPU time of a running process, in seconds, and how often it was switched out. */
double cpu_s(pid_t pid);
uint64_t context_switches(pid_t pid);

/* Zeroed memory that later children share with us, or that is our own; all pages are there already. */
void *share_memory(size_t size);
void *own_memory(size_t size);

#endif
