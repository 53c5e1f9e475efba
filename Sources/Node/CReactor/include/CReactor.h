#ifndef APUS_CREACTOR_H
#define APUS_CREACTOR_H
#endif
