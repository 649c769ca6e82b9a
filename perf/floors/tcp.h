/* Loopback TCP as the engine sets it up: no delay, and cubic where the kernel has it. */
#ifndef PARTYWIRE_FLOORS_TCP_H
#define PARTYWIRE_FLOORS_TCP_H

/* Two ends of one connection over 127.0.0.1, blocking. */
void connect_pair(int ends[2]);

void set_nonblocking(int fd);

#endif
