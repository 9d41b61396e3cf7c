// eval/report/report_parts.h - the sections of the page. Private to report_*.c.
#ifndef EVAL_REPORT_PARTS_H
#define EVAL_REPORT_PARTS_H

#include "eval/report/report_html.h"

extern const char report_style[]; // the style sheet

// <figure> with title, note and the legend of the drafters that have `key` (NULL: no legend).
void figure_open(Page *p, const ReportView *v, const char *key, const char *title,
                 const char *note);
void figure_close(Page *p);
// What the tau of a page counts, under one chart or table.
void page_counting(Page *p, const ReportView *v);

void charts_tau(Page *p, const ReportView *v);
void charts_position(Page *p, const ReportView *v);
bool charts_slices(Page *p, const ReportView *v, const char *group, const char *title);
bool charts_speed(Page *p, const ReportView *v);
void charts_recall(Page *p, const ReportView *v);
MUST_CHECK bool charts_training(Page *p, const ReportRun *run, int runs, Err *err);

// A table scrolls in a region of its own.
void table_open(Page *p, const char *caption);
void table_close(Page *p);
void tables_tau(Page *p, const ReportView *v);      // k by drafters, one table a key
void table_artifacts(Page *p, const ReportView *v); // sizes beside tau, where it was asked for
void table_drafters(Page *p, const ReportView *v);
void table_slices(Page *p, const ReportView *v, const char *group, const char *what);
void tables_speed(Page *p, const ReportView *v);
void tables_p_min(Page *p, const ReportView *v);
void table_countings(Page *p, const ReportView *v); // what others would print
void tables_everything(Page *p, const ReportView *v);
void tables_recall(Page *p, const ReportView *v);
void table_power(Page *p, const ReportView *v);
void table_sweep(Page *p, const ReportView *v);
void table_audit(Page *p, const ReportView *v);
void list_texts(Page *p, Ref object); // its members that are texts, as a definition list

#endif
