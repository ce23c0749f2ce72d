// The C prototype of the capture: what the storm benchmark divides execwatch's cost by. It is measured, not shipped.
//
// Reference for ratios, not for style: per-CPU SCHED_FIFO capture of exe and argv; -q no output, -t adds the batched FORK/EXIT table, -n without SCHED_FIFO, -x exe only.
// gcc -O2 -pthread -w -o capture capture.c; run as root, SIGTERM prints the counts.
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <fcntl.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <linux/netlink.h>
#include <linux/connector.h>
#include <linux/cn_proc.h>
#include <linux/filter.h>
#include <arpa/inet.h>
#include <stddef.h>
static volatile int stop; static void onsig(int s){stop=1;}
static int rt=1,exeonly=0,quiet=0; 
struct st{int cpu; long ev,ex,okexe,okcmd,enobufs; pthread_t t;} S[256];
static void*run(void*arg){ struct st*t=arg;
 cpu_set_t cs;CPU_ZERO(&cs);CPU_SET(t->cpu,&cs); sched_setaffinity(0,sizeof cs,&cs);
 int s=socket(AF_NETLINK,SOCK_DGRAM,NETLINK_CONNECTOR);
 struct sockaddr_nl a={.nl_family=AF_NETLINK,.nl_groups=CN_IDX_PROC,.nl_pid=0};
 int sz=32<<20; setsockopt(s,SOL_SOCKET,SO_RCVBUFFORCE,&sz,sizeof sz);
 struct sock_filter f[]={
   BPF_STMT(BPF_LD|BPF_W|BPF_ABS,36),
   BPF_JUMP(BPF_JMP|BPF_JEQ|BPF_K,htonl(PROC_EVENT_EXEC),0,3),
   BPF_STMT(BPF_LD|BPF_W|BPF_ABS,40),
   BPF_JUMP(BPF_JMP|BPF_JEQ|BPF_K,htonl(t->cpu),0,1),
   BPF_STMT(BPF_RET|BPF_K,0xffffffff),
   BPF_STMT(BPF_RET|BPF_K,0)};
 struct sock_fprog p={6,f}; if(setsockopt(s,SOL_SOCKET,SO_ATTACH_FILTER,&p,sizeof p))perror("filter");
 if(bind(s,(void*)&a,sizeof a)){perror("bind");return 0;}
 struct {struct nlmsghdr h; struct cn_msg m; enum proc_cn_mcast_op op;} __attribute__((packed)) q={{sizeof q,NLMSG_DONE,0,0,getpid()},{{CN_IDX_PROC,CN_VAL_PROC},0,0,sizeof(enum proc_cn_mcast_op),0},PROC_CN_MCAST_LISTEN};
 send(s,&q,sizeof q,0);
 if(rt){struct sched_param sp={.sched_priority=10}; if(sched_setscheduler(0,SCHED_FIFO,&sp))perror("sched");}
 char buf[4096]; char path[64],exe[4096],cmd[4096];
 while(!stop){
  ssize_t n=recv(s,buf,sizeof buf,0);
  if(n<0){ if(errno==ENOBUFS){t->enobufs++;continue;} if(errno==EINTR)continue; break;}
  struct nlmsghdr*h=(void*)buf; struct cn_msg*m=NLMSG_DATA(h); struct proc_event*e=(void*)m->data; t->ev++;
  if(e->what!=PROC_EVENT_EXEC)continue; t->ex++;
  pid_t pd=e->event_data.exec.process_tgid;
  if(!exeonly){sprintf(path,"/proc/%d/cmdline",pd); int fd=open(path,O_RDONLY|O_CLOEXEC); ssize_t r=-1; if(fd>=0){ r=read(fd,cmd,sizeof cmd-1); close(fd);} 
  if(r>0){cmd[r]=0; for(int i=0;i<r-1;i++)if(!cmd[i])cmd[i]=' '; t->okcmd++; if(!quiet)printf("%d %s\n",pd,cmd);}}
  sprintf(path,"/proc/%d/exe",pd); ssize_t l=readlink(path,exe,sizeof exe-1); if(l>0){t->okexe++;}
 }
 return 0;}
static long forks,exits,dr; static int tree=0;
static void*treerun(void*x){
 int s=socket(AF_NETLINK,SOCK_DGRAM|SOCK_NONBLOCK,NETLINK_CONNECTOR);
 struct sockaddr_nl a={.nl_family=AF_NETLINK,.nl_groups=CN_IDX_PROC,.nl_pid=0};
 int sz=64<<20; setsockopt(s,SOL_SOCKET,SO_RCVBUFFORCE,&sz,sizeof sz);
 struct sock_filter f[]={
   BPF_STMT(BPF_LD|BPF_W|BPF_ABS,36),
   BPF_JUMP(BPF_JMP|BPF_JEQ|BPF_K,htonl(PROC_EVENT_FORK),0,4),
   BPF_STMT(BPF_LD|BPF_W|BPF_ABS,60), BPF_STMT(BPF_MISC|BPF_TAX,0), BPF_STMT(BPF_LD|BPF_W|BPF_ABS,64),
   BPF_JUMP(BPF_JMP|BPF_JEQ|BPF_X,0,5,6),
   BPF_JUMP(BPF_JMP|BPF_JEQ|BPF_K,htonl(0x80000000),0,5),
   BPF_STMT(BPF_LD|BPF_W|BPF_ABS,52), BPF_STMT(BPF_MISC|BPF_TAX,0), BPF_STMT(BPF_LD|BPF_W|BPF_ABS,56),
   BPF_JUMP(BPF_JMP|BPF_JEQ|BPF_X,0,0,1),
   BPF_STMT(BPF_RET|BPF_K,0xffffffff),
   BPF_STMT(BPF_RET|BPF_K,0)};
 struct sock_fprog p={13,f}; if(setsockopt(s,SOL_SOCKET,SO_ATTACH_FILTER,&p,sizeof p))perror("filter");
 bind(s,(void*)&a,sizeof a);
 struct {struct nlmsghdr h; struct cn_msg m; enum proc_cn_mcast_op op;} __attribute__((packed)) q={{sizeof q,NLMSG_DONE,0,0,getpid()},{{CN_IDX_PROC,CN_VAL_PROC},0,0,sizeof(enum proc_cn_mcast_op),0},PROC_CN_MCAST_LISTEN};
 send(s,&q,sizeof q,0);
 static char bufs[256][128]; struct mmsghdr mm[256]; struct iovec iv[256];
 while(!stop){ usleep(50000); for(;;){ for(int i=0;i<256;i++){iv[i].iov_base=bufs[i];iv[i].iov_len=128;memset(&mm[i],0,sizeof mm[i]);mm[i].msg_hdr.msg_iov=&iv[i];mm[i].msg_hdr.msg_iovlen=1;}
   int n=recvmmsg(s,mm,256,0,0); if(n<0){ if(errno==ENOBUFS){dr++;continue;} break;} for(int i=0;i<n;i++){ unsigned w=*(unsigned*)(bufs[i]+36); if(w==1)forks++; else exits++; } } }
 return 0;}
int main(int c,char**v){ int o; int n=sysconf(_SC_NPROCESSORS_ONLN);
 while((o=getopt(c,v,"nxqs:t"))!=-1){ if(o=='n')rt=0; if(o=='t')tree=1; if(o=='x')exeonly=1; if(o=='q')quiet=1; }
 struct sigaction sa={.sa_handler=onsig}; sigaction(SIGTERM,&sa,0); sigaction(SIGINT,&sa,0);
 for(int i=0;i<n;i++){S[i].cpu=i;pthread_create(&S[i].t,0,run,&S[i]);}
 pthread_t tt; if(tree)pthread_create(&tt,0,treerun,0); while(!stop)pause(); usleep(100000);
 long ev=0,ex=0,a=0,b=0,d=0; for(int i=0;i<n;i++){ev+=S[i].ev;ex+=S[i].ex;a+=S[i].okexe;b+=S[i].okcmd;d+=S[i].enobufs;}
 fflush(stdout); fprintf(stderr,"forks=%ld exits=%ld overruns=%ld\n",forks,exits,dr);
 fprintf(stderr,"ev=%ld ex=%ld okexe=%ld okcmd=%ld enobufs=%ld\n",ev,ex,a,b,d); _exit(0);
}
