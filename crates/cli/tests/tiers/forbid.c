/* Runs a program as a container without privileges would: `forbid PROGRAM ARGUMENT..`.
 *
 * What makes namespaces and mounts fails with EPERM, whatever the capabilities, as by Docker's default filter. */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NAMESPACES 0x7e020000
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define IS(number, otherwise) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, otherwise)
#define RETURN(action) BPF_STMT(BPF_RET | BPF_K, action)
#define REFUSE(number) IS(number, 1), RETURN(SECCOMP_RET_ERRNO | EPERM)

int main(int count, char **arguments)
{
	struct sock_filter code[] = {
		LOAD(nr),
		REFUSE(SYS_unshare),
		REFUSE(SYS_setns),
		REFUSE(SYS_mount),
		REFUSE(SYS_umount2),
		REFUSE(SYS_pivot_root),
		REFUSE(SYS_open_tree),
		REFUSE(SYS_move_mount),
		REFUSE(SYS_fsopen),
		REFUSE(SYS_fsmount),
		REFUSE(SYS_fsconfig),
		REFUSE(SYS_mount_setattr),
		IS(SYS_clone3, 1),
		RETURN(SECCOMP_RET_ERRNO | ENOSYS),
		IS(SYS_clone, 3),
		LOAD(args[0]),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, NAMESPACES, 0, 1),
		RETURN(SECCOMP_RET_ERRNO | EPERM),
		RETURN(SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof code / sizeof *code, code };
	/* Only who is not root needs it. */
	if (geteuid() && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		perror("PR_SET_NO_NEW_PRIVS");
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program)) {
		perror("seccomp");
		return 125;
	}
	if (count < 2)
		return 2;
	execvp(arguments[1], arguments + 1);
	perror(arguments[1]);
	return 127;
}
