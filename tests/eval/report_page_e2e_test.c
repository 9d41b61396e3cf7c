// tests/eval/report_page_e2e_test.c - the page as a browser lays it out at 390 and 1400 pixels
// (skipped where there is no Chromium): nothing wider than the window, nothing clipped, no text on
// text, nothing fetched.
#include <stdlib.h>
#include <sys/wait.h>

#include "eval/report/report.h"
#include "infer/base/file.h"
#include "tests/eval/report/report_made.h"

// Two frames of the widths in question; a frame's width is what its media queries see. What is
// found goes into an attribute of the document, which --dump-dom prints.
static const char probe[] =
    "<!doctype html><meta charset=utf-8><body>\n"
    "<iframe style='width:390px;height:900px;border:0' src='report.html'></iframe>\n"
    "<iframe style='width:1400px;height:900px;border:0' src='report.html'></iframe>\n"
    "<script>\n"
    "function look(f){const d=f.contentDocument,w=f.contentWindow,out=[];\n"
    " for(const e of d.querySelectorAll('details'))e.open=true;\n"
    " const W=d.documentElement.clientWidth;\n"
    " if(d.documentElement.scrollWidth>W)out.push('page '+d.documentElement.scrollWidth+'>'+W);\n"
    " let seen=0;\n"
    " for(const e of d.querySelectorAll('main *')){\n"
    "  if(e.closest('.scroll')&&!e.matches('.scroll'))continue;\n"
    "  const r=e.getBoundingClientRect();if(!r.width)continue;seen++;\n"
    "  if(r.right>W+1||r.left<-1)out.push('wide '+e.tagName+' '+e.textContent.slice(0,20));}\n"
    " for(const s of d.querySelectorAll('svg')){const v=s.viewBox.baseVal,\n"
    "   t=[...s.querySelectorAll('text')],b=t.map(e=>e.getBBox()),\n"
    "   scale=s.getBoundingClientRect().width/v.width;\n"
    "  for(let i=0;i<t.length;i++){\n"
    "   const size=parseFloat(w.getComputedStyle(t[i]).fontSize)*scale;\n"
    "   if(size<11)out.push('small '+size.toFixed(1)+' '+t[i].textContent);\n"
    "   if(b[i].x<-.5||b[i].y<-.5||b[i].x+b[i].width>v.width+.5||b[i].y+b[i].height>v.height+.5)\n"
    "    out.push('clipped '+t[i].textContent);\n"
    "   for(let j=0;j<i;j++)if(b[i].x<b[j].x+b[j].width&&b[j].x<b[i].x+b[i].width&&\n"
    "     b[i].y<b[j].y+b[j].height-1&&b[j].y<b[i].y+b[i].height-1)\n"
    "    out.push('overlap '+t[i].textContent+'/'+t[j].textContent);}}\n"
    " const scroll=[...d.querySelectorAll('.scroll')].filter(e=>!e.closest('details')&&\n"
    "  e.scrollWidth>e.clientWidth+1).length;\n"
    " const n=w.performance.getEntriesByType('resource').length;\n"
    " if(n)out.push(n+' requests');\n"
    " if(w.evil||d.querySelector('script'))out.push('script');\n"
    " return W+' wide, '+scroll+' tables scroll, '+seen+' boxes: '+(out.length?out.join('; "
    "'):'fine');}\n"
    "addEventListener('load',()=>{document.body.dataset.found=\n"
    " [...document.querySelectorAll('iframe')].map(look).join(' | ');});\n"
    "</script>\n";

static const char *chromium(void) {
    static const char *const names[] = {"chromium", "chromium-browser", "google-chrome"};
    char command[80];
    for (int i = 0; i < 3; i++) {
        snprintf(command, sizeof command, "command -v %s >/dev/null 2>&1", names[i]);
        if (system(command) == 0) return names[i];
    }
    return NULL;
}

// Of few drafters a phone shows every table whole; those that open on a click may scroll.
static void browse(const char *browser, const char *dir, bool few) {
    char path[PATH_ROOM], *command, found[1 << 16];
    Err err = {0};
    path_join(path, dir, "probe.html");
    assert_ok(file_write(path, probe, sizeof probe - 1, &err), err);
    assert_true(
        asprintf(
            &command,
            "HOME=%s timeout 120 %s --headless --no-sandbox --disable-gpu --no-first-run "
            "--disable-dev-shm-usage --user-data-dir=%s/profile --allow-file-access-from-files "
            "--disable-background-networking --hide-scrollbars --window-size=1500,1000 "
            "--virtual-time-budget=20000 "
            "--dump-dom file://%s/probe.html 2>/dev/null | grep -o 'data-found=\"[^\"]*\"'",
            dir, browser, dir, dir) > 0);
    FILE *p = popen(command, "r");
    free(command);
    assert_non_null(p);
    const size_t n = fread(found, 1, sizeof found - 1, p);
    found[n] = '\0';
    pclose(p);
    const char *narrow = strstr(found, "\"390 wide, "), *wide = strstr(found, "| 1400 wide, ");
    if (narrow == NULL || wide == NULL) fail_msg("the browser said: %s", found);
    if (strstr(narrow, "boxes: fine |") == NULL || strstr(wide, "boxes: fine\"") == NULL)
        fail_msg("%s", found);
    if (few && atoi(narrow + strlen("\"390 wide, ")) != 0) fail_msg("%s", found);
    assert_int_equal(atoi(wide + strlen("| 1400 wide, ")), 0);
    narrow = strstr(narrow, "scroll, "), wide = strstr(wide, "scroll, ");
    assert_true(atoi(narrow + 8) > 200 && atoi(wide + 8) > 200);
}

static void pages_fit_a_phone_and_a_desk(void **state) {
    (void)state;
    static const MadeDrafter many[] = {
        {"stock", "aa", 2},
        {"trained", "bb", 4},
        {MADE_EVIL, "cc", 3},
        {"a-drafter-with-a-name-that-is-far-longer-than-it-should-be-q4", "dd", 3},
        {"fifth", "ee", 5}};
    const char *browser = chromium();
    char metrics[PATH_ROOM], dir[PATH_ROOM], name[16];
    Err err = {0};
    if (browser == NULL) {
        printf("skipped: no Chromium to lay out the page\n");
        skip();
    }
    FILE *f = fopen(path_join(metrics, test_dir(), "metrics.jsonl"), "w");
    for (int s = 0; s <= 12000; s += 40)
        fprintf(f, "{\"step\":%d,\"dev/tau\":%g,\"train/loss\":%g,\"train/match_1\":0.5}\n", s,
                2 + s * 1e-4, 3.0 / (1 + s));
    fclose(f);
    static const int drafters[] = {1, 2, 3, 5};
    for (int i = 0; i < 4; i++) {
        const int n = drafters[i];
        json_t *o = made_report(many, n, n > 3, n > 1);
        snprintf(name, sizeof name, "page-%d", n);
        assert_ok(report_write(o, metrics, path_join(dir, test_dir(), name), &err), err);
        browse(browser, dir, n <= 2);
        json_decref(o);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(pages_fit_a_phone_and_a_desk)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
